import com.google.cloud.functions.HttpFunction;
import com.google.cloud.functions.HttpRequest;
import com.google.cloud.functions.HttpResponse;
import java.net.InetAddress;
import java.security.SecureRandom;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;
import java.util.SplittableRandom;
import java.util.UUID;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;

/** Draws from every generator that a process seeds while it loads, and says what it shares with other instances. */
public class Draw implements HttpFunction {
  private static final String LOADED = UUID.randomUUID().toString();
  private static final Random SEEDED = new Random(42);
  private static final SecureRandom SECURE = new SecureRandom();
  private static final AtomicInteger CALLS = new AtomicInteger();

  static {
    Math.random();
    ThreadLocalRandom.current().nextLong();
    new SplittableRandom().nextLong();
    SECURE.nextLong();
    System.out.println("loading");
  }

  @Override
  public void service(HttpRequest request, HttpResponse response) throws Exception {
    byte[] bytes = new byte[16];
    SECURE.nextBytes(bytes);
    Map<String, Object> differs = new LinkedHashMap<>();
    differs.put("math", Math.random());
    differs.put("threadLocal", ThreadLocalRandom.current().nextLong());
    differs.put("splittable", new SplittableRandom().nextLong());
    differs.put("random", new Random().nextLong());
    differs.put("secure", HexFormat.of().formatHex(bytes));
    differs.put("uuid", UUID.randomUUID());
    Map<String, Object> same = new LinkedHashMap<>();
    same.put("seeded", SEEDED.nextLong());
    same.put("loaded", LOADED);
    response.setContentType("application/json");
    response.getWriter().write(
        "{\"calls\":" + CALLS.incrementAndGet() + ",\"host\":\"" + InetAddress.getLocalHost().getHostName()
            + "\",\"same\":" + json(same) + ",\"differs\":" + json(differs) + "}");
  }

  private static String json(Map<String, Object> values) {
    return values.entrySet().stream()
        .map(entry -> "\"" + entry.getKey() + "\":\"" + entry.getValue() + "\"")
        .collect(Collectors.joining(",", "{", "}"));
  }
}
