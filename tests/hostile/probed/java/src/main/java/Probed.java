import com.google.cloud.functions.HttpFunction;
import com.google.cloud.functions.HttpRequest;
import com.google.cloud.functions.HttpResponse;
import java.io.File;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;

/** Runs the script that the path names, as SCRIPT or SCRIPT.KIND, in a process of its own and answers what it prints. */
public class Probed implements HttpFunction {
  @Override
  public void service(HttpRequest request, HttpResponse response) throws Exception {
    Path folder = Files.createTempDirectory("scripts");
    for (String name : new String[] {"probe.py", "meet.py", "host.json"}) {
      try (InputStream file = Probed.class.getResourceAsStream("/" + name)) {
        Files.copy(file, folder.resolve(name));
      }
    }
    String own = new File(Probed.class.getProtectionDomain().getCodeSource().getLocation().toURI()).getParent();
    String[] words = request.getPath().split("\\.");
    String script = folder + words[0] + ".py";
    String kind = words.length > 1 ? words[1] : "function";
    Process process = new ProcessBuilder("python3", "-B", script, kind, own).redirectError(new File("/tmp/failed")).start();
    byte[] said = process.getInputStream().readAllBytes();
    boolean isDone = process.waitFor() == 0;
    response.setStatusCode(isDone ? 200 : 500);
    response.getOutputStream().write(isDone ? said : Files.readAllBytes(Path.of("/tmp/failed")));
  }
}
