import java.nio.file.Files;
import java.nio.file.Path;
import java.util.spi.ToolProvider;

/**
 * Makes the launcher's jar: {@code java Pack.java SOURCES JAR}. Its manifest names the jar's own file name, by which the machine finds the
 * classes that its generators call.
 */
public final class Pack {
  public static void main(String[] words) throws Exception {
    Path sources = Path.of(words[0]);
    Path jar = Path.of(words[1]);
    Path classes = Files.createTempDirectory("classes");
    Path manifest = classes.resolve("manifest");
    Files.writeString(manifest, "Premain-Class: tanebi.Launch\nBoot-Class-Path: " + jar.getFileName() + "\nCan-Retransform-Classes: true\n");
    run("javac", "-nowarn", "-Xlint:none", "-source", "17", "-target", "17", "--add-exports", "java.base/jdk.internal.misc=ALL-UNNAMED",
        "-d", classes.toString(), sources.resolve("tanebi/Launch.java").toString(),
        sources.resolve("tanebi/Renewal.java").toString(), sources.resolve("tanebi/Warming.java").toString());
    run("jar", "cfm", jar.toString(), manifest.toString(), "-C", classes.toString(), "tanebi");
  }

  private static void run(String tool, String... words) {
    int code = ToolProvider.findFirst(tool).orElseThrow().run(System.out, System.err, words);
    if (code != 0) {
      throw new IllegalStateException(tool + " exited with " + code);
    }
  }
}
