package functions;

import com.google.cloud.functions.HttpFunction;
import com.google.cloud.functions.HttpRequest;
import com.google.cloud.functions.HttpResponse;
import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonObject;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.security.DigestInputStream;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.Map;
import java.util.TreeMap;

/** The function that one table of requests tries in every language: one path a behaviour. */
public class Table implements HttpFunction {
  private static final Gson GSON = new GsonBuilder().disableHtmlEscaping().create();

  static {
    Runtime.getRuntime().addShutdownHook(new Thread(() -> Lines.OUT.println("table: SIGTERM")));
  }

  private record Size(long bytes, String sha256) {}

  private record Upload(Map<String, String> fields, Map<String, File> files) {}

  private record File(String filename, long bytes) {}

  private record Echo(String method, String path, String query, Map<String, String> headers, String body) {}

  private record Warning(String severity, String message) {}

  /** Answers by the path. */
  @Override
  public void service(HttpRequest request, HttpResponse response) throws Exception {
    switch (request.getPath()) {
      case "/hello" -> hello(request, response);
      case "/size" -> size(request, response);
      case "/stream" -> stream(request, response);
      case "/slow" -> slow(request, response);
      case "/cors" -> cors(request, response);
      case "/upload" -> upload(request, response);
      case "/environment" -> environment(request, response);
      case "/echo" -> echo(request, response);
      case "/fail" -> throw new IllegalStateException("failed as asked");
      case "/log" -> log(request, response);
      default -> {
        response.setStatusCode(404);
        sendText(response, "no such path\n");
      }
    }
  }

  private static void sendText(HttpResponse response, String text) throws IOException {
    response.setContentType("text/plain; charset=utf-8");
    response.getOutputStream().write(text.getBytes(StandardCharsets.UTF_8));
  }

  private static void sendJson(HttpResponse response, Object value) throws IOException {
    response.setContentType("application/json");
    response.getOutputStream().write(GSON.toJson(value).getBytes(StandardCharsets.UTF_8));
  }

  private static String query(HttpRequest request, String name) {
    return request.getFirstQueryParameter(name).orElse("");
  }

  private static String body(HttpRequest request) throws IOException {
    return new String(request.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
  }

  /** Greets whoever is named, or the world. */
  private static void hello(HttpRequest request, HttpResponse response) throws IOException {
    String name = query(request, "name");
    if (request.getContentType().orElse("").startsWith("application/json")) {
      JsonObject json = GSON.fromJson(body(request), JsonObject.class);
      if (json != null && json.has("name")) {
        name = json.get("name").getAsString();
      }
    }
    sendText(response, "Hello " + (name.isEmpty() ? "World" : name) + "!");
  }

  /** Says how long the body is, and its digest. */
  private static void size(HttpRequest request, HttpResponse response) throws Exception {
    MessageDigest digest = MessageDigest.getInstance("SHA-256");
    long bytes;
    try (InputStream body = new DigestInputStream(request.getInputStream(), digest)) {
      bytes = body.transferTo(OutputStream.nullOutputStream());
    }
    sendJson(response, new Size(bytes, HexFormat.of().formatHex(digest.digest())));
  }

  /** Sends as many parts as asked for, one every 100 ms. */
  private static void stream(HttpRequest request, HttpResponse response) throws Exception {
    int parts = Integer.parseInt(query(request, "parts"));
    for (int number = 1; number <= parts; number++) {
      if (number > 1) {
        Thread.sleep(100);
      }
      sendText(response, "part " + number + "\n");
      response.getOutputStream().flush();
    }
  }

  /** Answers after the time asked for. */
  private static void slow(HttpRequest request, HttpResponse response) throws Exception {
    int ms = Integer.parseInt(query(request, "ms"));
    Thread.sleep(ms);
    sendText(response, "slept " + ms + " ms\n");
  }

  /** Lets pages of any origin ask. */
  private static void cors(HttpRequest request, HttpResponse response) throws IOException {
    response.appendHeader("Access-Control-Allow-Origin", "*");
    if (request.getMethod().equals("OPTIONS")) {
      response.appendHeader("Access-Control-Allow-Methods", "GET");
      response.appendHeader("Access-Control-Allow-Headers", "Content-Type");
      response.appendHeader("Access-Control-Max-Age", "3600");
      response.setStatusCode(204);
    } else {
      sendText(response, "Hello World!");
    }
  }

  /** Says what a form brought. */
  private static void upload(HttpRequest request, HttpResponse response) throws IOException {
    Upload upload = new Upload(new TreeMap<>(), new TreeMap<>());
    for (var entry : request.getParts().entrySet()) {
      HttpRequest.HttpPart part = entry.getValue();
      byte[] content = part.getInputStream().readAllBytes();
      if (part.getFileName().isPresent()) {
        upload.files().put(entry.getKey(), new File(part.getFileName().get(), content.length));
      } else {
        upload.fields().put(entry.getKey(), new String(content, StandardCharsets.UTF_8));
      }
    }
    sendJson(response, upload);
  }

  /** Says what a variable is set to. */
  private static void environment(HttpRequest request, HttpResponse response) throws IOException {
    sendText(response, System.getenv().getOrDefault(query(request, "name"), ""));
  }

  /** Says what arrived. */
  private static void echo(HttpRequest request, HttpResponse response) throws IOException {
    Map<String, String> headers = new TreeMap<>();
    request.getHeaders().forEach((name, values) -> headers.put(name.toLowerCase(), String.join(", ", values)));
    String query = request.getQuery().orElse("");
    sendJson(response, new Echo(request.getMethod(), request.getPath(), query, headers, body(request)));
  }

  /** Writes a line to stdout, and a structured one to stderr. */
  private static void log(HttpRequest request, HttpResponse response) throws IOException {
    String text = query(request, "text");
    Lines.OUT.println(text);
    Lines.ERR.println(GSON.toJson(new Warning("WARNING", text)));
    sendText(response, "ok");
  }
}
