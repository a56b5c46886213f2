package tanebi;

import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.lang.instrument.ClassFileTransformer;
import java.lang.instrument.Instrumentation;
import java.lang.instrument.UnmodifiableClassException;
import java.lang.module.ModuleDescriptor.Version;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.ProtectionDomain;
import java.security.SecureRandom;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.concurrent.ThreadLocalRandom;
import java.util.jar.Attributes;
import java.util.jar.JarEntry;
import java.util.jar.JarFile;
import java.util.random.RandomGenerator;
import java.util.random.RandomGeneratorFactory;
import java.util.stream.Stream;
import jdk.internal.misc.Unsafe;
import jdk.internal.misc.VM;

/**
 * The agent of a template: edits this JVM's generators of random numbers so that they differ between clones, and tells the engine where
 * their flag lies. The framework is started by Java itself, as ever.
 */
public final class Launch implements ClassFileTransformer {
  private static final String FRAMEWORK = "com.google.cloud.functions.invoker.runner.Invoker";
  /** Classes of its server that the warming paths do not reach; those of other versions are not found and not missed. */
  private static final List<String> LATER = List.of("javax.servlet.ServletRequestEvent", "org.eclipse.jetty.http.HttpFields$1",
      "org.eclipse.jetty.http.pathmap.MatchedResource", "org.eclipse.jetty.http.pathmap.ServletPathSpec$1", "org.eclipse.jetty.server.HttpOutput$2",
      "org.eclipse.jetty.server.HttpOutput$WriteCompleteCB", "org.eclipse.jetty.server.ServletRequestHttpWrapper",
      "org.eclipse.jetty.server.ServletResponseHttpWrapper", "org.eclipse.jetty.util.ByteArrayOutputStream2",
      "org.eclipse.jetty.util.MultiMap$1", "org.eclipse.jetty.util.UrlEncoded");
  /** The variable by which the engine tells launchers that they are in a template. */
  private static final String VARIABLE = "TANEBI_TEMPLATE";
  private static final char ALOAD_0 = 0x2a, ALOAD_1 = 0x2b, INVOKESTATIC = 0xb8, LRETURN = 0xad, RETURN = 0xb1;

  /** Methods of {@link Renewal} and {@link Warming}: what is loaded before the call. */
  private enum Hook {
    CHECK("()V", ""), MADE("(Ljava/lang/Object;)V", "" + ALOAD_0), SEEDED("(Ljava/lang/Object;)V", "" + ALOAD_0), SALTED("(J)J", ""),
    SOWN("(Ljava/lang/Object;)V", "" + ALOAD_0), STIRRED("([BLjava/lang/Object;)V", "" + ALOAD_1 + ALOAD_0),
    EXECUTES("(Ljava/lang/Object;)V", "" + ALOAD_0), SERVES("(Ljava/lang/Object;)V", "" + ALOAD_0);

    final String descriptor;
    final String loads;

    Hook(String descriptor, String loads) {
      this.descriptor = descriptor;
      this.loads = loads;
    }

    String owner() {
      return compareTo(EXECUTES) < 0 ? "tanebi/Renewal" : "tanebi/Warming";
    }
  }

  /** What a method calls first and last; either may be null. */
  private record Edit(Hook first, Hook last) {}

  private static final Edit BIRTH = new Edit(Hook.CHECK, Hook.MADE), DRAW = new Edit(Hook.CHECK, null), STEP = new Edit(null, Hook.SALTED);
  private static final Edit SEED = new Edit(Hook.SEEDED, null), SOW = new Edit(Hook.SOWN, null), STIR = new Edit(null, Hook.STIRRED);
  private static final Edit EXECUTION = new Edit(null, Hook.EXECUTES), SERVICE = new Edit(Hook.SERVES, null);

  private final Map<Class<?>, Map<String, Edit>> edits = new HashMap<>();
  private Throwable failure;
  private int edited;

  public static void premain(String level, Instrumentation instrumentation) throws InterruptedException {
    boolean isStopped = false;
    StringBuilder said = new StringBuilder();
    try {
      Set<Module> own = Set.of(Launch.class.getModule());
      Map<String, Set<Module>> open = Map.of("jdk.internal.misc", own, "java.lang", own);
      instrumentation.redefineModule(Object.class.getModule(), Set.of(), open, open, Set.of(), Map.of());
      hide();
      checkFirst();
      Launch launch = new Launch();
      launch.edit(instrumentation);
      rehearse();
      said.append("flag 0x").append(Long.toHexString(Renewal.FLAG)).append('\n');
      Optional<List<String>> paths = prepare();
      if ("runtime".equals(level)) {
        if (paths.isEmpty()) throw new IllegalStateException("its program is not the framework");
        isStopped = true;
        said.append("ready\n");
      } else {
        boolean isWarmed = paths.isPresent() && launch.isWarmed(instrumentation);
        said.append(isWarmed ? Warming.wait(paths.get()) : Warming.paths(paths.orElse(List.of())));
      }
    } catch (Throwable e) {
      said.append("refused ").append(e.toString().replace('\n', ' ')).append('\n');
    }
    try {
      say(said.toString());
    } catch (IOException e) {
      // Without these lines there is no template.
    }
    if (isStopped) Renewal.await();
  }

  /** What another agent made before this one could not be renewed. */
  private static void checkFirst() {
    for (String argument : VM.getRuntimeArguments()) {
      if (argument.startsWith("-javaagent:") && (argument.endsWith("/launch.jar") || argument.endsWith("/launch.jar=runtime"))) return;
      if (argument.startsWith("-javaagent:") || argument.startsWith("-agent")) throw new IllegalStateException("another agent: " + argument);
    }
  }

  /** Takes this jar out of the class path that the function sees, and the engine's variable out of its environment. */
  private static void hide() throws ReflectiveOperationException {
    String path = System.getProperty("java.class.path", "");
    if (path.endsWith("/launch.jar")) System.setProperty("java.class.path", path.substring(0, path.lastIndexOf(':')));
    Field all = Class.forName("java.lang.ProcessEnvironment").getDeclaredField("theEnvironment");
    all.setAccessible(true);
    ((Map<?, ?>) all.get(null)).keySet().removeIf(name -> name.toString().equals(VARIABLE));
  }

  // === What makes the first request cheap ===

  /**
   * Loads what the first request would load, without running any of it. Returns the paths that the framework answers without the function:
   * before 1.3.2 it went on to call it all the same. Nothing: the program is another one.
   */
  private static Optional<List<String>> prepare() {
    try (JarFile jar = new JarFile(System.getProperty("java.class.path"))) {
      Attributes main = jar.getManifest().getMainAttributes();
      if (!FRAMEWORK.equals(main.getValue(Attributes.Name.MAIN_CLASS))) return Optional.empty();
      boolean isOfEvents = Set.of("event", "cloudevent").contains(System.getenv().getOrDefault("FUNCTION_SIGNATURE_TYPE", ""));
      List<String> folders = List.of("com/google/cloud/functions/", "io/cloudevents/", "com/google/gson/").subList(0, isOfEvents ? 3 : 1);
      jar.stream().map(JarEntry::getName).filter(name -> name.endsWith(".class") && folders.stream().anyMatch(name::startsWith))
          .forEach(name -> load(name.substring(0, name.length() - 6).replace('/', '.')));
      LATER.forEach(Launch::load);
      String version = main.getValue(Attributes.Name.IMPLEMENTATION_VERSION);
      if (version == null || Version.parse(version).compareTo(Version.parse("1.3.2")) < 0) return Optional.of(List.of());
      byte[] handler = jar.getInputStream(jar.getJarEntry(FRAMEWORK.replace('.', '/') + "$NotFoundHandler.class")).readAllBytes();
      String constants = new String(handler, StandardCharsets.ISO_8859_1);
      return Optional.of(Stream.of("/favicon.ico", "/robots.txt").filter(constants::contains).toList());
    } catch (IOException | RuntimeException e) {
      return Optional.empty();
    }
  }

  private static void load(String name) {
    try {
      // Asking for the methods makes the machine check the code, too.
      Class.forName(name, false, ClassLoader.getSystemClassLoader()).getDeclaredMethods();
    } catch (ClassNotFoundException | LinkageError e) {
      // Not in this version.
    }
  }

  /** Whether {@link Warming} will be called: the framework is one that it knows. */
  private boolean isWarmed(Instrumentation instrumentation) {
    try {
      ClassLoader loader = ClassLoader.getSystemClassLoader();
      Class<?> executor = Class.forName("com.google.cloud.functions.invoker.HttpFunctionExecutor", false, loader);
      Class<?> framework = Class.forName(FRAMEWORK, false, loader);
      edits.put(executor, Map.of("<init>(Lcom/google/cloud/functions/HttpFunction;)V", EXECUTION));
      edits.put(framework, Map.of("logServerInfo()V", SERVICE));
      int before = edited;
      instrumentation.retransformClasses(executor);
      if (edited > before) instrumentation.retransformClasses(framework);
      return edited == before + 2;
    } catch (ClassNotFoundException | UnmodifiableClassException | LinkageError e) {
      return false;
    }
  }

  /** Opening a pipe by its path would need its owner's permission. */
  static void say(String lines) throws IOException {
    if (!Files.readSymbolicLink(Path.of("/proc/self/fd/6")).toString().startsWith("pipe:")) return;
    FileDescriptor said = new FileDescriptor();
    Unsafe.getUnsafe().putInt(said, Unsafe.getUnsafe().objectFieldOffset(FileDescriptor.class, "fd"), 6);
    new FileOutputStream(said).write(lines.getBytes(StandardCharsets.UTF_8));
  }

  // === Which methods are edited ===

  private void edit(Instrumentation instrumentation) throws Exception {
    edits.put(Random.class, Map.of("<init>()V", BIRTH, "setSeed(J)V", SEED, "next(I)I", DRAW, "nextGaussian()D", DRAW));
    edits.put(SplittableRandom.class, Map.of("<init>()V", BIRTH, "nextSeed()J", DRAW));
    edits.put(ThreadLocalRandom.class, Map.of("nextSeed()J", STEP));
    String parameters = "([BLjava/security/SecureRandomParameters;)V";
    edits.put(SecureRandom.class, Map.of("setSeed([B)V", SOW, "nextBytes([B)V", STIR, "nextBytes" + parameters, STIR));
    for (RandomGeneratorFactory<RandomGenerator> algorithm : RandomGeneratorFactory.all().toList()) {
      if (List.of("Random", "SplittableRandom", "SecureRandom").contains(algorithm.name())) continue;
      Class<?> type = type(algorithm.name());
      Map<String, Edit> methods = new HashMap<>(Map.of("<init>()V", BIRTH));
      for (Method method : type.getDeclaredMethods()) {
        if (method.getParameterCount() == 0 && method.getName().equals("nextInt")) methods.put("nextInt()I", DRAW);
        if (method.getParameterCount() == 0 && method.getName().equals("nextLong")) methods.put("nextLong()J", DRAW);
      }
      if (methods.size() == 1) throw new IllegalStateException("no draws in " + type);
      edits.put(type, methods);
      Map<String, Set<Module>> open = Map.of(type.getPackageName(), Set.of(Launch.class.getModule()));
      instrumentation.redefineModule(type.getModule(), Set.of(), Map.of(), open, Set.of(), Map.of());
    }
    for (Class<?> type : edits.keySet()) if (edits.get(type).containsValue(BIRTH)) Renewal.learn(type);
    // For good: whoever transforms them later starts from the edited ones.
    instrumentation.addTransformer(this, true);
    instrumentation.retransformClasses(edits.keySet().toArray(Class<?>[]::new));
    if (edited != edits.size()) throw new IllegalStateException("edited " + edited + " of " + edits.size() + " classes: " + failure);
  }

  private static Class<?> type(String algorithm) throws ClassNotFoundException {
    try {
      return Class.forName("jdk.random." + algorithm, false, ClassLoader.getSystemClassLoader());
    } catch (ClassNotFoundException e) {
      return Class.forName("jdk.internal.random." + algorithm, false, null);
    }
  }

  /** Draws once from every kind of edited method with the flag raised. */
  private static void rehearse() {
    Random random = new Random();
    SplittableRandom splittable = new SplittableRandom();
    SecureRandom secure = new SecureRandom(new Renewal.Zeros(), null) {};
    byte[] bytes = new byte[64];
    // Its generator is made here, and by that one of those that are renewed.
    Math.random();
    for (int i = 0; i < 6; i++) {
      Renewal.flag(1);
      switch (i) {
        case 0 -> Math.random();
        case 1 -> random.nextGaussian();
        case 2 -> ThreadLocalRandom.current().nextInt();
        case 3 -> splittable.nextInt();
        case 4 -> secure.nextBytes(bytes);
        default -> new SplittableRandom();
      }
      if (Renewal.flag() != 0) throw new IllegalStateException("no renewal by draw " + i);
    }
    if (Arrays.equals(bytes, new byte[bytes.length])) throw new IllegalStateException("no entropy");
    Renewal.settle();
  }

  // === How a class file is edited ===

  @Override
  public byte[] transform(ClassLoader loader, String name, Class<?> type, ProtectionDomain domain, byte[] file) {
    if (type == null || !edits.containsKey(type)) return null;
    try {
      byte[] done = new ClassFile(file, edits.get(type)).done();
      edited++;
      return done;
    } catch (Throwable e) {
      failure = e;
      return null;
    }
  }

  /** One pass over a class file: constants are added, the code of some methods is added to, all else is copied. */
  private static final class ClassFile {
    private final ByteBuffer in;
    private final ByteBuffer out;
    private final Map<String, Edit> methods;
    private final String[] texts;

    ClassFile(byte[] file, Map<String, Edit> methods) {
      in = ByteBuffer.wrap(file);
      out = ByteBuffer.allocate(file.length + 2048);
      texts = new String[in.getChar(8)];
      this.methods = methods;
    }

    byte[] done() {
      copy(8);
      constants();
      copy(6);
      copy(2 * copyChar());
      int found = 0;
      for (boolean isMethod : new boolean[] {false, true}) {
        for (int members = copyChar(); members > 0; members--) {
          copy(2);
          String name = texts[copyChar()] + texts[copyChar()];
          Edit edit = isMethod ? methods.get(name) : null;
          if (edit != null) found++;
          for (int attributes = copyChar(); attributes > 0; attributes--) {
            if (edit != null && texts[in.getChar(in.position())].equals("Code")) code(edit);
            else copy(6 + in.getInt(in.position() + 2));
          }
        }
      }
      if (found != methods.size()) throw new IllegalStateException("found " + found + " of " + methods.keySet());
      copy(in.remaining());
      return Arrays.copyOf(out.array(), out.position());
    }

    private void constants() {
      int added = in.getChar();
      out.putChar((char) (added + 6 * Hook.values().length));
      for (int i = 1; i < added; i++) {
        int tag = in.get(in.position());
        int size = switch (tag) {
          case 1 -> 3 + in.getChar(in.position() + 1);
          case 3, 4, 9, 10, 11, 12, 17, 18 -> 5;
          case 5, 6 -> 9;
          case 7, 8, 16, 19, 20 -> 3;
          case 15 -> 4;
          default -> throw new IllegalStateException("constant " + tag);
        };
        if (tag == 1) texts[i] = new String(in.array(), in.position() + 3, size - 3, StandardCharsets.UTF_8);
        // The wide ones take two places.
        if (tag == 5 || tag == 6) i++;
        copy(size);
      }
      for (Hook hook : Hook.values()) {
        int first = added + 6 * hook.ordinal();
        text(hook.owner());
        out.put((byte) 7).putChar((char) first);
        text(hook.name().toLowerCase());
        text(hook.descriptor);
        out.put((byte) 12).putChar((char) (first + 2)).putChar((char) (first + 3));
        out.put((byte) 10).putChar((char) (first + 1)).putChar((char) (first + 4));
      }
    }

    private void code(Edit edit) {
      copy(2);
      int size = out.position();
      copy(4);
      // No hook needs more of the stack.
      out.putChar((char) (in.getChar() + 2));
      copy(2);
      byte[] code = new byte[in.getInt()];
      in.get(code);
      int last = code.length - 1;
      if (edit.last != null) checkLast(code);
      // Four bytes, so that no switch changes its padding.
      byte[] before = edit.first == null ? new byte[0] : Arrays.copyOf(call(edit.first), 4);
      byte[] after = edit.last == null ? new byte[0] : call(edit.last);
      out.putInt(code.length + before.length + after.length).put(before).put(code, 0, last).put(after).put(code[last]);
      for (int handlers = copyChar(); handlers > 0; handlers--) {
        for (int i = 0; i < 3; i++) {
          int at = in.getChar();
          out.putChar((char) (at + before.length + (at > last ? after.length : 0)));
        }
        copy(2);
      }
      // The tables of debuggers are left out, but for line numbers.
      int count = out.position();
      int kept = 0;
      out.putChar((char) 0);
      for (int tables = in.getChar(); tables > 0; tables--) {
        String table = texts[in.getChar(in.position())];
        int end = in.position() + 6 + in.getInt(in.position() + 2);
        int start = out.position();
        if (table.equals("LineNumberTable")) {
          copy(6);
          for (int lines = copyChar(); lines > 0; lines--) {
            out.putChar((char) (in.getChar() + before.length));
            copy(2);
          }
        } else if (table.equals("StackMapTable")) {
          copy(8);
          // Each frame counts from the one before, so the first alone is moved; the short forms get the long one's place.
          int tag = in.get() & 0xff;
          int offset = before.length + (tag < 128 ? tag & 63 : in.getChar());
          out.put((byte) (tag < 64 ? 251 : tag < 128 ? 247 : tag)).putChar((char) offset);
          copy(end - in.position());
          out.putInt(start + 2, out.position() - start - 6);
        }
        if (out.position() > start) kept++;
        in.position(end);
      }
      out.putChar(count, (char) kept).putInt(size, out.position() - size - 4);
    }

    private byte[] call(Hook hook) {
      int reference = texts.length + 5 + 6 * hook.ordinal();
      String code = hook.loads + INVOKESTATIC + (char) (reference >> 8) + (char) (reference & 0xff);
      return code.getBytes(StandardCharsets.ISO_8859_1);
    }

    /** The instruction before which the call comes must be the only one by which the method returns. */
    private static void checkLast(byte[] code) {
      int last = code.length - 1;
      boolean isReturn = code[last] == (byte) RETURN || code[last] == (byte) LRETURN;
      // Found among operands too, which is stricter than need be.
      for (int i = 0; i < last; i++) isReturn &= code[i] != code[last];
      if (!isReturn) throw new IllegalStateException("several ends");
    }

    private void text(String text) {
      out.put((byte) 1).putChar((char) text.length()).put(text.getBytes(StandardCharsets.US_ASCII));
    }

    private char copyChar() {
      char value = in.getChar();
      out.putChar(value);
      return value;
    }

    private void copy(int count) {
      out.put(in.array(), in.position(), count);
      in.position(in.position() + count);
    }
  }
}
