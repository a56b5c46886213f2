import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.math.BigInteger;
import java.net.HttpURLConnection;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.zip.ZipEntry;
import java.util.zip.ZipInputStream;

/**
 * Fetches files of known content beside each other: {@code java Fetch.java [URL ALGORITHM HEX TARGET file|unpack]...}. What has another
 * hash is not kept. With {@code unpack} the target is a folder for the files of a zip.
 *
 * <p>Written for a short life: plain classes start faster than lambdas, streams and java.net.http.
 */
public final class Fetch extends Thread {
  private static final int WORDS = 5;
  private static final int REDIRECTS_MAX = 5;

  private final String[] words;
  private final int first;
  private Exception failure;

  private Fetch(String[] words, int first) {
    this.words = words;
    this.first = first;
  }

  public static void main(String[] words) throws Exception {
    Fetch[] all = new Fetch[words.length / WORDS];
    for (int at = 0; at < all.length; at++) {
      all[at] = new Fetch(words, at * WORDS);
      all[at].start();
    }
    for (Fetch one : all) {
      one.join();
      if (one.failure != null) {
        throw one.failure;
      }
    }
  }

  @Override
  public void run() {
    try {
      byte[] content = download(new URL(words[first]));
      byte[] hash = MessageDigest.getInstance(words[first + 1]).digest(content);
      if (!new BigInteger(1, hash).equals(new BigInteger(words[first + 2], 16))) {
        throw new IOException(words[first] + " has the hash " + new BigInteger(1, hash).toString(16) + ", not " + words[first + 2]);
      }
      Path target = Path.of(words[first + 3]);
      if (words[first + 4].equals("unpack")) {
        unpack(content, target);
      } else {
        Files.write(target, content);
      }
    } catch (Exception exception) {
      failure = exception;
    }
  }

  private static byte[] download(URL url) throws IOException {
    for (int redirects = 0; redirects < REDIRECTS_MAX; redirects++) {
      HttpURLConnection connection = (HttpURLConnection) url.openConnection();
      int status = connection.getResponseCode();
      if (status == 200) {
        return connection.getInputStream().readAllBytes();
      }
      String location = connection.getHeaderField("Location");
      // Java follows none to another protocol.
      if (status / 100 != 3 || location == null || !location.startsWith("https:")) {
        throw new IOException(url + " answered " + status);
      }
      url = new URL(location);
    }
    throw new IOException(url + " is one redirect too many");
  }

  private static void unpack(byte[] content, Path target) throws IOException {
    try (ZipInputStream zip = new ZipInputStream(new ByteArrayInputStream(content))) {
      for (ZipEntry entry = zip.getNextEntry(); entry != null; entry = zip.getNextEntry()) {
        Path path = target.resolve(entry.getName()).normalize();
        if (!path.startsWith(target)) {
          throw new IOException(entry.getName() + " leads out of the archive");
        }
        if (entry.isDirectory()) {
          Files.createDirectories(path);
        } else {
          Files.createDirectories(path.getParent());
          Files.write(path, zip.readAllBytes());
        }
      }
    }
  }
}
