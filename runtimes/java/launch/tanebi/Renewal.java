package tanebi;

import java.io.FileInputStream;
import java.io.IOException;
import java.lang.ref.WeakReference;
import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.security.SecureRandom;
import java.security.SecureRandomSpi;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.WeakHashMap;
import java.util.concurrent.atomic.AtomicLong;
import jdk.internal.misc.Unsafe;

/**
 * What the edited generators call. Every draw looks at one word of memory, in which the engine stores 1 before anything runs in a clone. The
 * first draw there, by whichever thread, renews all that was seeded before; the others wait for it.
 */
public final class Renewal {
  private static final Unsafe UNSAFE = Unsafe.getUnsafe();
  static final long FLAG = UNSAFE.allocateMemory(Integer.BYTES);
  /** The generators that Java brings, by class. */
  private static final Map<Class<?>, Kind> KINDS = new HashMap<>();
  /** The generators of keys that repeat for whoever seeds them first, and the places that tell whether they have a seed. */
  private static final Class<?> SHA1 = provided("SecureRandom"), DRBG = provided("DRBG");
  private static final long SPI = UNSAFE.objectFieldOffset(SecureRandom.class, "secureRandomSpi");
  private static final long SHA1_STATE = UNSAFE.objectFieldOffset(SHA1, "state");
  private static final long DRBG_IMPL = UNSAFE.objectFieldOffset(DRBG, "impl");
  private static final long DRBG_STATE = UNSAFE.objectFieldOffset(provided("AbstractDrbg"), "instantiated");
  /** Those of them that were seeded so. */
  private static final Set<Object> SOWN = Collections.synchronizedSet(Collections.newSetFromMap(new WeakHashMap<>()));
  /** Generators that seeded themselves while the function loaded. */
  private static final List<WeakReference<Object>> MADE = new ArrayList<>();
  private static final byte[] POOL = new byte[4096];
  private static final FileInputStream ENTROPY;

  private static int madeMax = 1024;
  private static boolean isRenewing;
  private static boolean isClone;
  private static long salt;
  /** Bytes of the pool that nobody has had yet. */
  private static int left;

  static {
    flag(0);
    try {
      ENTROPY = new FileInputStream("/dev/urandom");
    } catch (IOException e) {
      throw new IllegalStateException(e);
    }
  }

  private Renewal() {}

  // === Called by the edited methods ===

  /** Before a draw, and before a generator seeds itself. */
  public static void check() {
    if (flag() != 0) renew();
  }

  /** After a generator has seeded itself. */
  public static void made(Object generator) {
    if (!isClone) keep(generator);
  }

  /** Before a generator is given a seed: from then on it repeats, as its owner wishes. */
  public static void seeded(Object generator) {
    if (!isClone) drop(generator);
  }

  /** After the step of a thread's own generator. So all threads, virtual ones too, leave the sequence of the template at once. */
  public static long salted(long seed) {
    check();
    return seed + salt;
  }

  /** Before a generator of keys is given a seed. */
  public static void sown(Object generator) {
    Object spi = UNSAFE.getReference(generator, SPI);
    if (spi == null) return;
    boolean isFirst = spi.getClass() == SHA1 && UNSAFE.getReferenceVolatile(spi, SHA1_STATE) == null
        || spi.getClass() == DRBG && !UNSAFE.getBooleanVolatile(UNSAFE.getReference(spi, DRBG_IMPL), DRBG_STATE);
    if (isFirst) SOWN.add(spi);
  }

  /** After a generator of keys, whoever provides it, has filled these bytes. In a clone they are mixed with the kernel's. */
  public static void stirred(byte[] bytes, Object generator) {
    check();
    if (!isClone) return;
    Object spi = UNSAFE.getReference(generator, SPI);
    if (spi != null && (spi.getClass() == SHA1 || spi.getClass() == DRBG) && SOWN.contains(spi)) return;
    synchronized (Renewal.class) {
      for (int i = 0; i < bytes.length; i++) bytes[i] ^= random();
    }
  }

  // === Renewal ===

  /** Waits to be a clone. A sleep that is over by the clock, as every clone's is, ends at once. */
  static void await() throws InterruptedException {
    for (check(); !isClone; check()) Thread.sleep(10);
  }

  private static synchronized void keep(Object generator) {
    if (isRenewing) return;
    if (MADE.size() >= madeMax) {
      List<WeakReference<Object>> alive = new ArrayList<>();
      for (WeakReference<Object> one : MADE) if (one.get() != null) alive.add(one);
      MADE.clear();
      MADE.addAll(alive);
      madeMax = Math.max(1024, 2 * MADE.size());
    }
    MADE.add(new WeakReference<>(generator));
  }

  private static synchronized void drop(Object generator) {
    for (int i = MADE.size() - 1; i >= 0; i--) if (MADE.get(i).get() == generator) MADE.remove(i);
  }

  private static synchronized void renew() {
    if (isRenewing || flag() == 0) return;
    isRenewing = true;
    try {
      left = 0;
      salt = randomLong();
      for (Kind kind : KINDS.values()) kind.reseed();
      for (WeakReference<Object> one : MADE) {
        Object generator = one.get();
        if (generator == null) continue;
        Class<?> type = generator.getClass();
        while (!KINDS.containsKey(type)) type = type.getSuperclass();
        KINDS.get(type).renew(generator);
      }
      isClone = true;
      flag(0);
    } catch (ReflectiveOperationException e) {
      throw new InternalError(e);
    } finally {
      isRenewing = false;
    }
  }

  private static byte random() {
    try {
      for (int got; left == 0; left = got) {
        got = ENTROPY.read(POOL);
        if (got < 0) throw new IOException("/dev/urandom ended");
      }
    } catch (IOException e) {
      throw new InternalError(e);
    }
    byte one = POOL[--left];
    POOL[left] = 0;
    return one;
  }

  private static long randomLong() {
    long all = 0;
    for (int i = 0; i < Long.BYTES; i++) all = all << 8 | random() & 0xff;
    return all;
  }

  /** Where a class has the state of its generators, and what seeds new ones. A generator is renewed by the state of a new one. */
  private record Kind(Constructor<?> birth, List<Field> state, List<Field> seeders) {
    void reseed() {
      for (Field field : seeders) {
        Object seeder = UNSAFE.getReferenceVolatile(UNSAFE.staticFieldBase(field), UNSAFE.staticFieldOffset(field));
        if (seeder != null) ((AtomicLong) seeder).set(randomLong());
      }
    }

    void renew(Object old) throws ReflectiveOperationException {
      Object fresh = birth.newInstance();
      for (Field field : state) {
        long at = UNSAFE.objectFieldOffset(field);
        Class<?> type = field.getType();
        if (type == AtomicLong.class) {
          ((AtomicLong) UNSAFE.getReference(old, at)).set(((AtomicLong) UNSAFE.getReference(fresh, at)).get());
        } else if (type == long[].class) {
          long[] from = (long[]) UNSAFE.getReference(fresh, at);
          System.arraycopy(from, 0, UNSAFE.getReference(old, at), 0, from.length);
        } else if (type == boolean.class) {
          UNSAFE.putBooleanVolatile(old, at, UNSAFE.getBoolean(fresh, at));
        } else if (type == int.class) {
          UNSAFE.putIntVolatile(old, at, UNSAFE.getInt(fresh, at));
        } else {
          UNSAFE.putLongVolatile(old, at, UNSAFE.getLong(fresh, at));
        }
      }
    }
  }

  // === Called by the launcher ===

  /** @throws IllegalStateException if the class has state of a form not known here */
  static void learn(Class<?> type) throws NoSuchMethodException {
    List<Field> state = new ArrayList<>();
    List<Field> seeders = new ArrayList<>();
    Set<Class<?>> forms = Set.of(AtomicLong.class, long[].class, long.class, double.class, int.class, boolean.class);
    for (Field field : type.getDeclaredFields()) {
      if (Modifier.isStatic(field.getModifiers())) {
        if (field.getType() == AtomicLong.class) seeders.add(field);
      } else if (forms.contains(field.getType())) {
        state.add(field);
      } else if (!Modifier.isFinal(field.getModifiers()) && field.getType().getEnclosingClass() != type) {
        throw new IllegalStateException("unknown state " + field);
      }
    }
    if (state.isEmpty() || seeders.isEmpty()) throw new IllegalStateException("unknown form of " + type);
    Constructor<?> birth = type.getDeclaredConstructor();
    birth.setAccessible(true);
    KINDS.put(type, new Kind(birth, state, seeders));
  }

  static int flag() {
    return UNSAFE.getIntVolatile(null, FLAG);
  }

  static void flag(int value) {
    UNSAFE.putIntVolatile(null, FLAG, value);
  }

  /** Forgets a rehearsal. */
  static synchronized void settle() {
    flag(0);
    isClone = false;
    salt = 0;
    left = 0;
  }

  private static Class<?> provided(String name) {
    try {
      return Class.forName("sun.security.provider." + name, false, null);
    } catch (ClassNotFoundException e) {
      throw new IllegalStateException(e);
    }
  }

  /** For the rehearsal: a generator of keys that leaves all bytes as they are. */
  static final class Zeros extends SecureRandomSpi {
    private static final long serialVersionUID = 1;

    @Override
    protected void engineSetSeed(byte[] seed) {}

    @Override
    protected void engineNextBytes(byte[] bytes) {}

    @Override
    protected byte[] engineGenerateSeed(int count) {
      return new byte[count];
    }
  }
}
