package clients;

import static clients.Checks.check;
import static clients.Checks.refused;

import com.google.api.gax.rpc.StatusCode.Code;
import com.google.cloud.functions.v2.Environment;
import com.google.cloud.functions.v2.Function;
import com.google.cloud.functions.v2.FunctionServiceClient;
import com.google.cloud.functions.v2.ListFunctionsRequest;
import com.google.cloud.run.v2.Revision;
import com.google.cloud.run.v2.RevisionsClient;
import com.google.cloud.run.v2.Service;
import com.google.cloud.run.v2.ServicesClient;
import com.google.protobuf.Duration;
import java.util.List;
import java.util.stream.StreamSupport;

/** Functions and the services behind them. */
final class Functions {
  private Functions() {}

  /** Gives the URL of hello. */
  static String run(Clients.World world) throws Exception {
    String name = world.parent() + "/functions/hello";
    String uri;
    try (FunctionServiceClient client = FunctionServiceClient.create()) {
      Iterable<Function> all = client.listFunctions(ListFunctionsRequest.newBuilder().setParent(world.parent()).build()).iterateAll();
      check("functions", StreamSupport.stream(all.spliterator(), false).map(Function::getName).toList(), List.of(name));
      Function one = client.getFunction(name);
      check("a function", List.of(one.getState(), one.getBuildConfig().getEntryPoint()), List.of(Function.State.ACTIVE, "hello_http"));
      check("its environment", one.getEnvironment(), Environment.GEN_2);
      refused("no function", Code.NOT_FOUND, () -> client.getFunction(name + "x"));
      uri = one.getServiceConfig().getUri();
    }
    try (ServicesClient services = ServicesClient.create(); RevisionsClient revisions = RevisionsClient.create()) {
      Service service = services.getService(world.parent() + "/services/hello");
      check("its service", service.getUri(), uri);
      Iterable<Revision> all = revisions.listRevisions(service.getName()).iterateAll();
      check("its revisions", StreamSupport.stream(all.spliterator(), false).anyMatch(r -> r.getName().equals(service.getLatestReadyRevision())));
      Service.Builder change = service.toBuilder();
      change.getTemplateBuilder().setTimeout(Duration.newBuilder().setSeconds(23)).clearRevision();
      Service updated = services.updateServiceAsync(change.build()).get();
      check("an update", updated.getTemplate().getTimeout().getSeconds(), 23L);
      check("a new revision", !updated.getLatestReadyRevision().equals(service.getLatestReadyRevision()));
    }
    return uri;
  }
}
