package clients;

import static clients.Checks.check;
import static clients.Checks.refused;

import com.google.auth.oauth2.ServiceAccountCredentials;
import com.google.cloud.ReadChannel;
import com.google.cloud.WriteChannel;
import com.google.cloud.storage.Blob;
import com.google.cloud.storage.BlobId;
import com.google.cloud.storage.BlobInfo;
import com.google.cloud.storage.Bucket;
import com.google.cloud.storage.BucketInfo;
import com.google.cloud.storage.HttpMethod;
import com.google.cloud.storage.Storage;
import com.google.cloud.storage.Storage.BlobListOption;
import com.google.cloud.storage.Storage.BlobTargetOption;
import com.google.cloud.storage.Storage.ComposeRequest;
import com.google.cloud.storage.Storage.CopyRequest;
import com.google.cloud.storage.Storage.MoveBlobRequest;
import com.google.cloud.storage.Storage.SignUrlOption;
import com.google.cloud.storage.StorageOptions;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.URL;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.TimeUnit;

/** Buckets and objects: up, down, conditions, lists, signed URLs. */
final class Objects {
  private static final int BIG_BYTES = 20 << 20;

  private Objects() {}

  static void run(Clients.World world) throws Exception {
    try (Storage storage = StorageOptions.getDefaultInstance().getService()) {
      String bucket = world.project() + "-java";
      Bucket made = storage.create(BucketInfo.newBuilder(bucket).setLocation(Clients.REGION).setLabels(Map.of("by", "java")).build());
      check("a bucket", List.of(made.getLocation(), made.getLabels()), List.of("ASIA-NORTHEAST1", Map.of("by", "java")));
      check("buckets", storage.list().streamAll().map(Bucket::getName).toList().contains(bucket));
      refused("a bucket twice", 409, () -> storage.create(BucketInfo.of(bucket)));

      BlobId text = BlobId.of(bucket, "a/text");
      Blob first = storage.create(BlobInfo.newBuilder(text).setContentType("text/plain").setMetadata(Map.of("k", "v")).build(), utf8("夏の星"));
      check("down", read(storage, text), "夏の星");
      Blob seen = storage.get(text);
      check("metadata", List.of(seen.getContentType(), seen.getSize(), seen.getMetadata()), List.of("text/plain", 9L, Map.of("k", "v")));
      Blob changed = seen.toBuilder().setMetadata(Map.of("l", "w")).setCacheControl("no-store").build().update();
      check("other metadata", List.of(changed.getMetadata().get("l"), changed.getMetageneration()), List.of("w", 2L));
      refused("a generation", 412, () -> storage.create(BlobInfo.newBuilder(text).build(), utf8("x"), BlobTargetOption.doesNotExist()));
      BlobInfo asItWas = BlobInfo.newBuilder(BlobId.of(bucket, "a/text", first.getGeneration())).build();
      storage.create(asItWas, utf8("two"), BlobTargetOption.generationMatch());
      check("as it was", read(storage, text), "two");
      check("no object", storage.get(bucket, "none"), null);

      // In chunks, checked by its hash.
      byte[] content = new byte[BIG_BYTES];
      new Random(1).nextBytes(content);
      BlobId big = BlobId.of(bucket, "big");
      try (WriteChannel to = storage.writer(BlobInfo.newBuilder(big).build())) {
        to.setChunkSize(4 << 20);
        to.write(ByteBuffer.wrap(content));
      }
      check("as it went up", Arrays.equals(storage.readAllBytes(big), content));
      check("its hash", storage.get(big).getMd5(), Base64.getEncoder().encodeToString(MessageDigest.getInstance("MD5").digest(content)));
      try (ReadChannel from = storage.reader(big)) {
        from.seek(10);
        from.limit(20);
        ByteBuffer part = ByteBuffer.allocate(100);
        while (from.read(part) >= 0) {}
        check("a range", Arrays.equals(Arrays.copyOf(part.array(), part.position()), Arrays.copyOfRange(content, 10, 20)));
      }

      BlobId copy = BlobId.of(bucket, "a/copy");
      storage.copy(CopyRequest.of(text, copy)).getResult();
      storage.compose(ComposeRequest.of(bucket, List.of("a/text", "a/copy"), "both"));
      check("composed", read(storage, BlobId.of(bucket, "both")), "twotwo");
      check("a list", names(storage, bucket, BlobListOption.prefix("a/"), BlobListOption.pageSize(1)), List.of("a/copy", "a/text"));
      check("folders", names(storage, bucket, BlobListOption.currentDirectory()), List.of("big", "both", "a/"));
      MoveBlobRequest move = MoveBlobRequest.newBuilder().setSource(BlobId.of(bucket, "both")).setTarget(BlobId.of(bucket, "moved"))
          .setTargetOptions(BlobTargetOption.doesNotExist()).build();
      check("moved in one step", List.of(storage.moveBlob(move).getName(), storage.get(bucket, "both") == null), List.of("moved", true));

      // Signed by a key of an account, used by whoever has them.
      ServiceAccountCredentials key = ServiceAccountCredentials.fromStream(new FileInputStream(world.keyFile()));
      BlobInfo signed = BlobInfo.newBuilder(bucket, "signed").setContentType("text/plain").build();
      SignUrlOption[] put = {
        SignUrlOption.withV4Signature(), SignUrlOption.signWith(key), SignUrlOption.httpMethod(HttpMethod.PUT), SignUrlOption.withContentType()
      };
      check("PUT by a URL", status(storage.signUrl(signed, 1, TimeUnit.HOURS, put), "by URL"), 200);
      URL url = storage.signUrl(signed, 1, TimeUnit.HOURS, SignUrlOption.withV4Signature(), SignUrlOption.signWith(key));
      check("GET by a URL", new String(url.openStream().readAllBytes(), StandardCharsets.UTF_8), "by URL");
      check("another object", status(new URL(url.toString().replace("/signed?", "/big?")), null), 403);

      refused("not empty", 409, () -> storage.delete(bucket));
      storage.list(bucket).streamAll().forEach(Blob::delete);
      check("deleted", storage.delete(bucket));
      check("it is gone", storage.get(bucket), null);
    }
  }

  private static byte[] utf8(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  private static String read(Storage storage, BlobId object) {
    return new String(storage.readAllBytes(object), StandardCharsets.UTF_8);
  }

  private static List<String> names(Storage storage, String bucket, BlobListOption... options) {
    return storage.list(bucket, options).streamAll().map(Blob::getName).toList();
  }

  private static int status(URL url, String body) throws IOException {
    HttpURLConnection connection = (HttpURLConnection) url.openConnection();
    if (body != null) {
      connection.setRequestMethod("PUT");
      connection.setRequestProperty("Content-Type", "text/plain");
      connection.setDoOutput(true);
      try (OutputStream to = connection.getOutputStream()) {
        to.write(utf8(body));
      }
    }
    return connection.getResponseCode();
  }
}
