package functions;

import com.google.cloud.functions.HttpFunction;
import com.google.cloud.functions.HttpRequest;
import com.google.cloud.functions.HttpResponse;
import com.google.gson.Gson;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;

/** What an instance sees of its limits, and what they do to it: one path a behaviour, the same in four languages. */
public class Limits implements HttpFunction {
  private static final Map<String, Boolean> STATE = new ConcurrentHashMap<>(Map.of("/live", true, "/ready", true));
  private static final AtomicInteger NOW = new AtomicInteger();
  private static final AtomicInteger PEAK = new AtomicInteger();

  /** Answers by the path. */
  @Override
  public void service(HttpRequest request, HttpResponse response) throws Exception {
    if (STATE.containsKey(request.getPath())) {
      response.setStatusCode(STATE.get(request.getPath()) ? 200 : 500);
      return;
    }
    PEAK.accumulateAndGet(NOW.incrementAndGet(), Math::max);
    try {
      String answer =
          switch (request.getPath()) {
            case "/about" -> about();
            case "/sleep" -> sleep(request);
            case "/burn" -> burn(request);
            case "/eat" -> eat(request);
            case "/set" -> set(request);
            default -> throw new IllegalArgumentException(request.getPath());
          };
      response.getOutputStream().write(answer.getBytes(StandardCharsets.UTF_8));
    } finally {
      NOW.decrementAndGet();
    }
  }

  /** The text of a file; nothing where there is none. */
  private static String content(String path) throws IOException {
    return Files.exists(Path.of(path)) ? Files.readString(Path.of(path)).strip() : "";
  }

  private static String host() throws IOException {
    return content("/proc/sys/kernel/hostname");
  }

  private static long number(HttpRequest request, String name) {
    return Long.parseLong(request.getFirstQueryParameter(name).orElseThrow());
  }

  /** What it sees. */
  private static String about() throws IOException {
    return new Gson()
        .toJson(
            Map.of(
                "id", host(),
                "heap", Runtime.getRuntime().maxMemory(),
                "processors", Runtime.getRuntime().availableProcessors(),
                "memory", content("/sys/fs/cgroup/memory.max"),
                "cpu", content("/sys/fs/cgroup/cpu.max"),
                "key", System.getenv().getOrDefault("KEY", ""),
                "file", content("/secrets/key"),
                "peak", PEAK.get(),
                "aborted", 0));
  }

  /** Answers after the time asked for. */
  private static String sleep(HttpRequest request) throws Exception {
    Thread.sleep(number(request, "ms"));
    return host();
  }

  /** Processor time that one wall-clock stretch gets. */
  private static String burn(HttpRequest request) {
    var threads = ManagementFactory.getThreadMXBean();
    long wall = System.nanoTime();
    long before = threads.getCurrentThreadCpuTime();
    while (System.nanoTime() - wall < number(request, "ms") * 1_000_000) {}
    return String.valueOf((double) (threads.getCurrentThreadCpuTime() - before) / (System.nanoTime() - wall));
  }

  /** Takes memory that is no heap, which the machine itself would refuse: files in /tmp are memory. */
  private static String eat(HttpRequest request) throws IOException {
    byte[] piece = new byte[1 << 20];
    for (long mib = 0; mib < number(request, "mib"); mib++) {
      Files.write(Path.of("/tmp/eaten"), piece, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
    }
    return "eaten";
  }

  /** Changes what probes see. */
  private static String set(HttpRequest request) throws IOException {
    request.getQueryParameters().forEach((name, values) -> STATE.put("/" + name, Boolean.valueOf(values.get(0))));
    return host();
  }
}
