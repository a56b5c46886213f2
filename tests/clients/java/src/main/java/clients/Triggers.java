package clients;

import static clients.Checks.check;
import static clients.Checks.refused;

import com.google.api.gax.rpc.ApiException;
import com.google.api.gax.rpc.StatusCode.Code;
import com.google.cloud.eventarc.v1.Channel;
import com.google.cloud.eventarc.v1.CloudRun;
import com.google.cloud.eventarc.v1.DeleteTriggerRequest;
import com.google.cloud.eventarc.v1.Destination;
import com.google.cloud.eventarc.v1.EventFilter;
import com.google.cloud.eventarc.v1.EventarcClient;
import com.google.cloud.eventarc.v1.Provider;
import com.google.cloud.eventarc.v1.Trigger;
import com.google.protobuf.FieldMask;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.stream.StreamSupport;

/** Triggers of Eventarc that call hello, and the providers of events. */
final class Triggers {
  private Triggers() {}

  static void run(Clients.World world) throws Exception {
    String parent = world.parent();
    String name = parent + "/triggers/from-java";
    CloudRun hello = CloudRun.newBuilder().setService("hello").setRegion(Clients.REGION).setPath("/in").build();
    Trigger wanted = Trigger.newBuilder().setName(name).setDestination(Destination.newBuilder().setCloudRun(hello))
        .addEventFilters(EventFilter.newBuilder().setAttribute("type").setValue("google.cloud.pubsub.topic.v1.messagePublished"))
        .putLabels("a", "b").build();
    try (EventarcClient client = EventarcClient.create()) {
      Trigger made = client.createTriggerAsync(parent, wanted, "from-java").get();
      check("a trigger", List.of(made.getName(), made.getDestination().getCloudRun().getService(), made.getLabelsMap()), List.of(name, "hello", Map.of("a", "b")));
      String topic = "projects/" + world.project() + "/topics/eventarc-" + Clients.REGION + "-from-java-";
      check("its transport", made.getTransport().getPubsub().getTopic().startsWith(topic));
      refused("a trigger twice", Code.ALREADY_EXISTS, () -> done(client.createTriggerAsync(parent, wanted, "from-java")));
      Trigger none = wanted.toBuilder().clearEventFilters().build();
      refused("no type", Code.INVALID_ARGUMENT, () -> done(client.createTriggerAsync(parent, none, "from-java")));
      check("it is there", client.getTrigger(name).getUid(), made.getUid());
      check("triggers", StreamSupport.stream(client.listTriggers(parent).iterateAll().spliterator(), false).map(Trigger::getName).toList(), List.of(name));
      Trigger change = Trigger.newBuilder().setName(name).putLabels("c", "d").build();
      Trigger changed = client.updateTriggerAsync(change, FieldMask.newBuilder().addPaths("labels").build(), false).get();
      check("only what is named changes", List.of(changed.getLabelsMap(), changed.getDestination().getCloudRun().getPath()), List.of(Map.of("c", "d"), "/in"));
      DeleteTriggerRequest old = DeleteTriggerRequest.newBuilder().setName(name).setEtag(made.getEtag()).build();
      refused("an old etag", Code.ABORTED, () -> done(client.deleteTriggerAsync(old)));
      check("deleted", client.deleteTriggerAsync(name, false).get().getName(), name);
      refused("it is gone", Code.NOT_FOUND, () -> client.getTrigger(name));

      Iterable<Provider> providers = client.listProviders(parent).iterateAll();
      check("providers", StreamSupport.stream(providers.spliterator(), false).map(p -> p.getName().substring(p.getName().lastIndexOf('/') + 1)).toList(),
          List.of("cloudaudit.googleapis.com", "pubsub.googleapis.com", "storage.googleapis.com"));
      check("a provider", client.getProvider(parent + "/providers/storage.googleapis.com").getEventTypesCount(), 4);
      check("channels", client.listChannels(parent).iterateAll().iterator().hasNext(), false);
      refused("no channel", Code.NOT_FOUND, () -> client.getChannel(parent + "/channels/c"));
      refused("a channel", Code.INVALID_ARGUMENT, () -> done(client.createChannelAsync(parent, Channel.getDefaultInstance(), "c")));
    }
  }

  /** What an operation ends with; its error as a call's. */
  private static <T> T done(Future<T> operation) throws Exception {
    try {
      return operation.get();
    } catch (ExecutionException error) {
      throw error.getCause() instanceof ApiException refusal ? refusal : error;
    }
  }
}
