package clients;

import static clients.Checks.check;
import static clients.Checks.refused;

import com.google.api.gax.rpc.StatusCode.Code;
import com.google.cloud.secretmanager.v1.Replication;
import com.google.cloud.secretmanager.v1.Secret;
import com.google.cloud.secretmanager.v1.SecretManagerServiceClient;
import com.google.cloud.secretmanager.v1.SecretPayload;
import com.google.cloud.secretmanager.v1.SecretVersion;
import com.google.protobuf.ByteString;
import java.util.List;
import java.util.stream.StreamSupport;

/** Secrets and their versions. */
final class Secrets {
  private Secrets() {}

  static void run(Clients.World world) throws Exception {
    String project = "projects/" + world.project();
    try (SecretManagerServiceClient client = SecretManagerServiceClient.create()) {
      Replication automatic = Replication.newBuilder().setAutomatic(Replication.Automatic.getDefaultInstance()).build();
      String name = client.createSecret(project, "java-secret", Secret.newBuilder().setReplication(automatic).build()).getName();
      for (String text : List.of("first", "second")) {
        client.addSecretVersion(name, SecretPayload.newBuilder().setData(ByteString.copyFromUtf8(text)).build());
      }
      check("a version by number", read(client, name, "1"), "first");
      check("the latest version", read(client, name, "latest"), "second");
      Iterable<SecretVersion> versions = client.listSecretVersions(name).iterateAll();
      check("versions", StreamSupport.stream(versions.spliterator(), false).map(SecretVersion::getName).toList(),
          List.of(name + "/versions/2", name + "/versions/1"));
      Iterable<Secret> secrets = client.listSecrets(project).iterateAll();
      check("secrets", StreamSupport.stream(secrets.spliterator(), false).map(Secret::getName).toList(), List.of(name));
      check("disabled", client.disableSecretVersion(name + "/versions/2").getState(), SecretVersion.State.DISABLED);
      refused("what is disabled", Code.FAILED_PRECONDITION, () -> read(client, name, "2"));
      check("destroyed", client.destroySecretVersion(name + "/versions/1").getState(), SecretVersion.State.DESTROYED);
      client.deleteSecret(name);
      refused("deleted", Code.NOT_FOUND, () -> client.getSecret(name));
    }
  }

  private static String read(SecretManagerServiceClient client, String secret, String version) {
    return client.accessSecretVersion(secret + "/versions/" + version).getPayload().getData().toStringUtf8();
  }
}
