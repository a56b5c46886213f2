import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.zip.ZipEntry;
import java.util.zip.ZipInputStream;

/**
 * Fetches one file of known content: {@code java Fetch.java URL ALGORITHM HEX TARGET [unpack]}. What has another hash is not kept. With
 * {@code unpack} the target is a folder for the files of a zip.
 */
public final class Fetch {
  public static void main(String[] arguments) throws Exception {
    URI uri = URI.create(arguments[0]);
    Path target = Path.of(arguments[3]);
    boolean unpack = arguments.length > 4;
    HttpClient client = HttpClient.newBuilder().followRedirects(HttpClient.Redirect.NORMAL).build();
    HttpResponse<byte[]> response = client.send(HttpRequest.newBuilder(uri).build(), HttpResponse.BodyHandlers.ofByteArray());
    if (response.statusCode() != 200) {
      throw new IllegalStateException(uri + " answered " + response.statusCode());
    }
    String hash = HexFormat.of().formatHex(MessageDigest.getInstance(arguments[1]).digest(response.body()));
    if (!hash.equals(arguments[2])) {
      throw new IllegalStateException(uri + " has the hash " + hash + ", not " + arguments[2]);
    }
    if (!unpack) {
      Files.write(target, response.body());
      return;
    }
    try (ZipInputStream zip = new ZipInputStream(new java.io.ByteArrayInputStream(response.body()))) {
      for (ZipEntry entry = zip.getNextEntry(); entry != null; entry = zip.getNextEntry()) {
        Path path = target.resolve(entry.getName()).normalize();
        if (!path.startsWith(target)) {
          throw new IllegalStateException(entry.getName() + " leads out of the archive");
        }
        if (entry.isDirectory()) {
          Files.createDirectories(path);
        } else {
          Files.createDirectories(path.getParent());
          try (InputStream content = new NoClose(zip)) {
            Files.copy(content, path);
          }
        }
      }
    }
  }

  private static final class NoClose extends java.io.FilterInputStream {
    NoClose(InputStream stream) {
      super(stream);
    }

    @Override
    public void close() {}
  }
}
