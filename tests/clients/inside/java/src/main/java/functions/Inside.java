package functions;

import com.google.api.client.http.GenericUrl;
import com.google.api.client.http.HttpRequestFactory;
import com.google.api.client.http.javanet.NetHttpTransport;
import com.google.auth.http.HttpCredentialsAdapter;
import com.google.auth.oauth2.GoogleCredentials;
import com.google.auth.oauth2.IdTokenCredentials;
import com.google.auth.oauth2.IdTokenProvider;
import com.google.cloud.ServiceOptions;
import com.google.cloud.functions.HttpFunction;
import com.google.cloud.functions.HttpRequest;
import com.google.cloud.functions.HttpResponse;
import com.google.cloud.pubsub.v1.Publisher;
import com.google.cloud.scheduler.v1.CloudSchedulerClient;
import com.google.cloud.secretmanager.v1.SecretManagerServiceClient;
import com.google.cloud.storage.BlobId;
import com.google.cloud.storage.BlobInfo;
import com.google.cloud.storage.Storage;
import com.google.cloud.storage.StorageOptions;
import com.google.gson.Gson;
import com.google.protobuf.ByteString;
import com.google.pubsub.v1.PubsubMessage;
import com.google.pubsub.v1.TopicName;
import java.io.IOException;
import java.net.HttpURLConnection;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** Google's libraries in a function, with no configuration. */
public class Inside implements HttpFunction {
  private record Clients(String project, Storage storage, Publisher publisher, SecretManagerServiceClient secrets, CloudSchedulerClient scheduler) {
    static Clients make() {
      try {
        String project = ServiceOptions.getDefaultProjectId();
        return new Clients(project, StorageOptions.getDefaultInstance().getService(), Publisher.newBuilder(TopicName.of(project, "inside")).build(),
            SecretManagerServiceClient.create(), CloudSchedulerClient.create());
      } catch (IOException error) {
        throw new IllegalStateException(error);
      }
    }
  }

  /** Made while it loads; with ?new they are made in the call. */
  private static final Clients SHARED = Clients.make();

  @Override
  public void service(HttpRequest request, HttpResponse response) throws Exception {
    if (request.getFirstQueryParameter("google").isPresent()) {
      HttpURLConnection connection = (HttpURLConnection) new URL("https://" + request.getFirstQueryParameter("google").get() + "/").openConnection();
      response.setStatusCode(connection.getResponseCode());
      var body = connection.getErrorStream() == null ? connection.getInputStream() : connection.getErrorStream();
      response.getWriter().write(new String(body.readAllBytes(), StandardCharsets.UTF_8));
      return;
    }
    Clients clients = request.getFirstQueryParameter("new").isPresent() ? Clients.make() : SHARED;
    String name = request.getFirstQueryParameter("name").get();
    String other = request.getFirstQueryParameter("other").get();
    BlobId object = BlobId.of(request.getFirstQueryParameter("bucket").get(), name);
    clients.storage().create(BlobInfo.newBuilder(object).build(), ("by " + name).getBytes(StandardCharsets.UTF_8));
    clients.publisher().publish(PubsubMessage.newBuilder().setData(ByteString.copyFromUtf8(name)).putAttributes("by", "java").build()).get();
    String version = "projects/" + clients.project() + "/secrets/inside/versions/latest";
    String secret = clients.secrets().accessSecretVersion(version).getPayload().getData().toStringUtf8();
    List<String> jobs = new ArrayList<>();
    String parent = "projects/" + clients.project() + "/locations/asia-northeast1";
    clients.scheduler().listJobs(parent).iterateAll().forEach(job -> jobs.add(job.getName().substring(job.getName().lastIndexOf('/') + 1)));
    IdTokenCredentials token = IdTokenCredentials.newBuilder()
        .setIdTokenProvider((IdTokenProvider) GoogleCredentials.getApplicationDefault()).setTargetAudience(other).build();
    HttpRequestFactory caller = new NetHttpTransport().createRequestFactory(new HttpCredentialsAdapter(token));
    String greeting = caller.buildGetRequest(new GenericUrl(other)).execute().parseAsString();
    String content = new String(clients.storage().readAllBytes(object), StandardCharsets.UTF_8);
    response.setContentType("application/json");
    response.getWriter().write(new Gson().toJson(Map.of("object", content, "secret", secret, "jobs", jobs, "greeting", greeting)));
  }
}
