package tanebi;

import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.Writer;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationHandler;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.logging.Level;
import java.util.logging.LogManager;
import java.util.logging.Logger;
import java.util.stream.Collectors;
import jdk.internal.misc.Unsafe;

/**
 * Makes the first request cheap: the framework serves requests of ours with a stand-in in the place of the user's function, which is never
 * called. What they load, link and compile, each clone has.
 */
public final class Warming {
  /** What each request, or each connection, runs once is compiled when it has run 256 times. */
  private static final int CONNECTIONS = 272, SECOND_OF = 3;
  private static final long SEND_MAX_MS = 3000, END_MAX_MS = 1000;
  /** How many connections' threads may wait for the collector. */
  private static final int THREADS_MAX = 96;
  /** Of looks that find no work; one is taken every 10 ms. */
  private static final int SETTLED = 12;
  private static final long SETTLE_MAX_MS = 2000;
  /**
   * So often the machine's watcher gives back what its compilers have used. In a clone of a process that it was still to clean, it would come
   * in the middle of the first request: 800 pages to copy (5 ms).
   */
  private static final long CLEANING_MS = 5000;
  /** By how much the watcher may be off. */
  private static final long CLEANING_OFF_MS = 300;
  private static final long BEGUN = System.nanoTime();
  private static final Unsafe UNSAFE = Unsafe.getUnsafe();

  private static List<String> paths;
  private static Object executor;

  private Warming() {}

  /** What is said until the server listens. */
  static String wait(List<String> paths) {
    Warming.paths = paths;
    return "wait\n";
  }

  static String paths(List<String> paths) {
    return paths.stream().map(path -> "warm " + path + "\n").collect(Collectors.joining());
  }

  // === Called by the edited methods of the framework ===

  /** After it has made what calls an HTTP function. */
  public static void executes(Object made) {
    executor = made;
  }

  /** When its server listens. */
  public static void serves(Object invoker) {
    Object executor = Warming.executor;
    Warming.executor = null;
    String said;
    try {
      boolean isWarm = executor != null && !isVerbose(executor.getClass().getClassLoader()) && warm(executor, port(invoker));
      said = isWarm ? "" : paths(paths);
    } catch (Unclean e) {
      said = "refused " + e.getMessage() + "\n";
    } catch (Throwable e) {
      // Not as in the versions known here, and as it was.
      said = paths(paths);
    }
    try {
      settle();
      Launch.say(said + "ready\n");
    } catch (IOException | InterruptedException e) {
      // Without these lines there is no template.
    }
  }

  // === The stand-in's time ===

  /** What warming has left behind in this process, which is not to be a template. */
  private static final class Unclean extends Exception {
    private static final long serialVersionUID = 1;

    Unclean(String what) {
      super(what);
    }
  }

  private static int port(Object invoker) throws ReflectiveOperationException {
    Method port = invoker.getClass().getDeclaredMethod("getPort");
    port.setAccessible(true);
    return (Integer) port.invoke(invoker);
  }

  /** Whether the server writes down what it does, by its owner's wish: of our requests nothing is to be read. */
  private static boolean isVerbose(ClassLoader loader) throws ReflectiveOperationException {
    try {
      Method isDebugged = Class.forName("org.eclipse.jetty.util.log.Logger", false, loader).getMethod("isDebugEnabled");
      Object loggers = Class.forName("org.eclipse.jetty.util.log.Log", false, loader).getMethod("getLoggers").invoke(null);
      for (Object logger : ((Map<?, ?>) loggers).values()) if ((Boolean) isDebugged.invoke(logger)) return true;
    } catch (ClassNotFoundException e) {
      // Since 2.0 it has Java's.
    }
    LogManager all = LogManager.getLogManager();
    for (String name : Collections.list(all.getLoggerNames())) {
      Logger logger = name.startsWith("org.eclipse.jetty") ? all.getLogger(name) : null;
      if (logger != null && logger.isLoggable(Level.FINE)) return true;
    }
    return false;
  }

  /** Whether it was done to the end. */
  private static boolean warm(Object executor, int port) throws Exception {
    Field field = executor.getClass().getDeclaredField("function");
    Class<?> type = field.getType();
    if (!type.getName().equals("com.google.cloud.functions.HttpFunction")) return false;
    long place = UNSAFE.objectFieldOffset(field);
    Object function = UNSAFE.getReferenceVolatile(executor, place);
    StandIn standIn = new StandIn(function, type);
    // Of the function's loader, which is the one that the framework gives to the thread.
    Object proxy = Proxy.newProxyInstance(function.getClass().getClassLoader(), new Class<?>[] {type}, standIn);
    int files = files();
    Client client = new Client(port, standIn.mark);
    // The owner's values that threads inherit are not asked for one.
    Thread thread = new Thread(null, client, "warming", 0, false);
    thread.setDaemon(true);
    try {
      UNSAFE.putReferenceVolatile(executor, place, proxy);
      thread.start();
      thread.join(SEND_MAX_MS + END_MAX_MS);
      client.close();
      thread.join(END_MAX_MS);
    } finally {
      UNSAFE.putReferenceVolatile(executor, place, function);
      if (UNSAFE.getReferenceVolatile(executor, place) != function) throw new Unclean("the function could not be put back");
      if (thread.isAlive()) throw new Unclean("its warming does not end");
    }
    // The server closes its side of a connection a little later. The engine would see one that stays open.
    long end = System.currentTimeMillis() + END_MAX_MS;
    while (files() > files && System.currentTimeMillis() < end) Thread.sleep(2);
    return client.isDone;
  }

  /** Waits until nothing is at work here: what the compilers had not come to would be compiled again in each clone. */
  private static void settle() throws IOException, InterruptedException {
    long end = System.currentTimeMillis() + SETTLE_MAX_MS;
    String before = "";
    for (int idle = 0; idle < SETTLED && System.currentTimeMillis() < end; ) {
      Thread.sleep(10);
      // The user's and the system's time follow on the name as the twelfth and the thirteenth word.
      String all = Files.readString(Path.of("/proc/self/stat"));
      String[] words = all.substring(all.lastIndexOf(')') + 2).split(" ");
      String ticks = words[11] + " " + words[12];
      idle = ticks.equals(before) ? idle + 1 : 0;
      before = ticks;
    }
    long age = (System.nanoTime() - BEGUN) / 1_000_000 + CLEANING_OFF_MS;
    Thread.sleep((age / CLEANING_MS + 1) * CLEANING_MS - age + 2 * CLEANING_OFF_MS);
  }

  private static int files() {
    return new File("/proc/self/fd").list().length;
  }

  /** A function as most are. Requests that are not ours it hands on to the user's. */
  private static final class StandIn implements InvocationHandler {
    final String mark = Long.toHexString(System.nanoTime());
    private final Object function;
    private final Map<String, Method> methods = new HashMap<>();
    private int count;

    StandIn(Object function, Class<?> type) throws ReflectiveOperationException {
      this.function = function;
      for (Method method : type.getMethods()) {
        if (!method.getName().equals("service")) continue;
        for (Class<?> side : method.getParameterTypes()) {
          for (Method one : side.getMethods()) methods.put(side.getSimpleName() + one.getName() + one.getParameterCount(), one);
        }
      }
      // Without it our requests would be taken for others.
      if (!methods.containsKey("HttpRequestgetFirstHeader1")) throw new NoSuchMethodException();
    }

    @Override
    public Object invoke(Object proxy, Method method, Object[] words) throws Throwable {
      boolean isOurs = method.getName().equals("service") && text(ask(words[0], "getFirstHeader", "x-warming")).equals(mark);
      if (isOurs) {
        try {
          answer(words[0], words[1]);
        } catch (Exception | LinkageError e) {
          // The framework would log it.
        }
        return null;
      }
      try {
        return method.invoke(function, words);
      } catch (InvocationTargetException e) {
        throw e.getCause();
      }
    }

    private void answer(Object request, Object response) throws ReflectiveOperationException, IOException {
      String method = (String) ask(request, "getMethod");
      String path = (String) ask(request, "getPath");
      String name = text(ask(request, "getFirstQueryParameter", "name"));
      Map<?, ?> parameters = (Map<?, ?>) ask(request, "getQueryParameters");
      Map<?, ?> headers = (Map<?, ?>) ask(request, "getHeaders");
      long length = (Long) ask(request, "getContentLength");
      String type = text(ask(request, "getContentType")) + text(ask(request, "getCharacterEncoding"));
      String seen = method + " " + path + "?" + text(ask(request, "getQuery")) + ask(request, "getUri") + headers.size() + parameters;
      String body = "";
      boolean isUsual = count++ % 4 != 0;
      if (method.equals("POST") && isUsual) {
        BufferedReader reader = (BufferedReader) ask(request, "getReader");
        body = reader.lines().collect(Collectors.joining("\n"));
      } else if (method.equals("POST")) {
        body = new String(((InputStream) ask(request, "getInputStream")).readAllBytes(), StandardCharsets.UTF_8);
      }
      String text = "Hello, " + name + "! " + link(body, type, count, length, seen);
      tell(response, "setStatusCode", 200);
      tell(response, "setContentType", isUsual ? "text/plain; charset=utf-8" : "application/json");
      tell(response, "appendHeader", "X-Answer", "some");
      if (isUsual) {
        ((Writer) tell(response, "getWriter")).write(text);
      } else {
        ((OutputStream) tell(response, "getOutputStream")).write(text.getBytes(StandardCharsets.UTF_8));
      }
    }

    private Object ask(Object request, String method, Object... words) throws ReflectiveOperationException {
      return methods.get("HttpRequest" + method + words.length).invoke(request, words);
    }

    private Object tell(Object response, String method, Object... words) throws ReflectiveOperationException {
      return methods.get("HttpResponse" + method + words.length).invoke(response, words);
    }

    private static String text(Object optional) {
      return ((Optional<?>) optional).map(Object::toString).orElse("");
    }
  }

  /** Strings and streams of the shapes that code is full of: what the machine links for one it has for the next. */
  private static String link(String one, String two, int number, long wide, Object thing) {
    String all = one + two;
    all = one + number;
    all = one + wide;
    all = one + thing;
    all = number + one;
    all = "a" + one + "b";
    all = "a" + number + "b";
    all = "a" + wide + "b";
    all = "a" + thing + "b";
    all = "a" + one + "b" + two;
    all = "a" + one + "b" + number;
    all = "a" + one + "b" + wide;
    all = "a" + one + "b" + thing;
    all = one + two + thing;
    all = "a" + number + "b" + one + "c";
    all = "a" + one + "b" + two + "c" + number;
    all = "a" + one + "b" + two + "c" + one + "d" + two;
    List<String> some = List.of(one, two);
    Map<String, Integer> sizes =
        some.stream().filter(part -> !part.isEmpty()).collect(Collectors.toMap(part -> part, String::length, (a, b) -> b, TreeMap::new));
    Map<Integer, List<String>> groups = some.stream().collect(Collectors.groupingBy(String::length));
    int sum = some.stream().mapToInt(String::length).sum();
    String joined = some.stream().map(part -> part + sum).sorted().collect(Collectors.joining(", "));
    return all.length() + sizes.size() + groups.size() + joined + some.stream().anyMatch(two::equals);
  }

  /** The machine's own maps grow when code is linked; by then their loop for that has run so often that it would be compiled. */
  private static void grow() {
    for (int i = 0; i < 8; i++) {
      Map<String, Integer> map = new ConcurrentHashMap<>();
      for (int j = 0; j < 1 << 13; j++) map.put(Integer.toString(i + j * 7919), j);
    }
  }

  /** Sends what an instance is sent. */
  private static final class Client implements Runnable {
    private final InetSocketAddress server;
    private final String[] requests;
    private final long end = System.currentTimeMillis() + SEND_MAX_MS;
    private final ByteBuffer answer = ByteBuffer.allocateDirect(8192);
    private volatile SocketChannel channel;
    private volatile boolean isDone;

    Client(int port, String mark) {
      server = new InetSocketAddress(InetAddress.getLoopbackAddress(), port);
      String few = " HTTP/1.1\r\nhost: function.localhost\r\nx-warming: " + mark + "\r\nx-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: https\r\n"
          + "forwarded: for=\"127.0.0.1\";proto=https\r\nvia: 1.1 google\r\n"
          + "x-cloud-trace-context: 0123456789abcdef0123456789abcdef/1;o=1\r\n"
          + "traceparent: 00-0123456789abcdef0123456789abcdef-0123456789abcdef-01\r\n";
      String many = few + "user-agent: Mozilla/5.0 (X11; Linux x86_64)\r\naccept: text/html,*/*;q=0.8\r\naccept-language: en\r\n"
          + "accept-encoding: gzip, br\r\ncookie: a=b; c=d\r\nauthorization: Bearer some\r\ncache-control: no-cache\r\nx-own: \r\n";
      String body = "content-type: application/json\r\ncontent-length: 16\r\n\r\n{\"name\":\"World\"}";
      requests = new String[] {"GET /" + few + "\r\n", "GET /some/path?name=World&text=a+b%20c" + many + "\r\n", "POST /" + few + body,
          "POST /some/path?name=World" + many + body};
    }

    @Override
    public void run() {
      int threads = Thread.activeCount();
      grow();
      try {
        for (int i = 0; i < CONNECTIONS && System.currentTimeMillis() < end; i++) {
          try (SocketChannel open = SocketChannel.open(server)) {
            channel = open;
            ask(requests[i % requests.length]);
            if (i % SECOND_OF == 0) ask(requests[i / SECOND_OF % requests.length]);
          }
          if (i % THREADS_MAX == 3 && !reaped(threads + 2)) return;
        }
        reaped(threads);
        isDone = true;
      } catch (Throwable e) {
        // What was not warmed is not missed, and nobody is to hear of it.
      }
    }

    /** The framework's timeout leaves a thread for each request until the collector has seen that nobody has its timer. */
    private static boolean reaped(int threads) throws InterruptedException {
      if (Thread.activeCount() <= threads) return true;
      System.gc();
      long end = System.currentTimeMillis() + END_MAX_MS / 4;
      while (Thread.activeCount() > threads && System.currentTimeMillis() < end) Thread.sleep(1);
      return Thread.activeCount() <= threads;
    }

    private void ask(String request) throws IOException {
      channel.write(ByteBuffer.wrap(request.getBytes(StandardCharsets.ISO_8859_1)));
      answer.clear();
      for (int from = 0; !isWhole(); ) {
        if (channel.read(answer) < 0 || !answer.hasRemaining()) throw new IOException("no answer");
      }
    }

    /** In chunks where the framework flushes what a function has written, as it does before 2.0. */
    private boolean isWhole() throws IOException {
      String text = StandardCharsets.ISO_8859_1.decode(answer.duplicate().flip()).toString();
      int body = text.indexOf("\r\n\r\n") + 4;
      if (body < 4) return false;
      if (!text.startsWith("HTTP/1.1 200 ")) throw new IOException("another answer");
      if (text.contains("Transfer-Encoding: chunked")) return text.endsWith("\r\n0\r\n\r\n");
      int length = text.indexOf("Content-Length: ") + 16;
      return length > 16 && text.length() - body == Integer.parseInt(text.substring(length, text.indexOf('\r', length)));
    }

    void close() throws IOException {
      SocketChannel last = channel;
      if (last != null) last.close();
    }
  }
}
