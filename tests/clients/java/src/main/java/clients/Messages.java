package clients;

import static clients.Checks.check;
import static clients.Checks.eventually;
import static clients.Checks.refused;

import com.google.api.core.ApiFuture;
import com.google.api.core.ApiFutures;
import com.google.api.gax.batching.FlowControlSettings;
import com.google.api.gax.rpc.ApiException;
import com.google.api.gax.rpc.StatusCode.Code;
import com.google.cloud.pubsub.v1.AckReplyConsumer;
import com.google.cloud.pubsub.v1.Publisher;
import com.google.cloud.pubsub.v1.Subscriber;
import com.google.cloud.pubsub.v1.SubscriptionAdminClient;
import com.google.cloud.pubsub.v1.TopicAdminClient;
import com.google.protobuf.ByteString;
import com.google.pubsub.v1.PubsubMessage;
import com.google.pubsub.v1.PushConfig;
import com.google.pubsub.v1.Subscription;
import com.google.pubsub.v1.Topic;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.IntFunction;
import java.util.stream.IntStream;
import java.util.stream.StreamSupport;

/** Topics and subscriptions, both ways of delivery, order. */
final class Messages {
  private static final int COUNT = 200;

  private Messages() {}

  static void run(Clients.World world) throws Exception {
    String name = "projects/" + world.project() + "/topics/java-top";
    String sub = "projects/" + world.project() + "/subscriptions/java-sub";
    String ordered = "projects/" + world.project() + "/subscriptions/java-ordered";
    String push = "projects/" + world.project() + "/subscriptions/java-push";
    try (TopicAdminClient topics = TopicAdminClient.create(); SubscriptionAdminClient subscriptions = SubscriptionAdminClient.create()) {
      topics.createTopic(Topic.newBuilder().setName(name).putLabels("by", "java").build());
      check("a topic", topics.getTopic(name).getLabelsMap(), Map.of("by", "java"));
      Iterable<Topic> all = topics.listTopics("projects/" + world.project()).iterateAll();
      check("topics", StreamSupport.stream(all.spliterator(), false).map(Topic::getName).toList(), List.of(name));
      ApiException twice = refused("a topic twice", Code.ALREADY_EXISTS, () -> topics.createTopic(name));
      check("in Google's words", twice.getMessage().contains("Resource already exists in the project (resource=java-top)."));
      Publisher nowhere = Publisher.newBuilder(name.replace("java-top", "none")).build();
      refused("no topic", Code.NOT_FOUND, () -> {
        try {
          return nowhere.publish(message("x", "")).get();
        } catch (ExecutionException error) {
          throw (Exception) error.getCause();
        }
      });
      nowhere.shutdown();

      // A stream, with attributes; what is refused once comes again.
      subscriptions.createSubscription(Subscription.newBuilder().setName(sub).setTopic(name).setAckDeadlineSeconds(20).build());
      Publisher publisher = Publisher.newBuilder(name).build();
      String id = publisher.publish(message("夏の星", "").toBuilder().putAttributes("k", "v").build()).get();
      List<PubsubMessage> seen = new CopyOnWriteArrayList<>();
      receive(Subscriber.newBuilder(sub, (PubsubMessage message, AckReplyConsumer reply) -> {
        seen.add(message);
        if (seen.size() == 1) {
          reply.nack();
        } else {
          reply.ack();
        }
      }), () -> seen.size() == 2);
      check("a message", seen.get(1).getMessageId(), id);
      check("its text and attributes", List.of(seen.get(1).getData().toStringUtf8(), seen.get(1).getAttributesMap()), List.of("夏の星", Map.of("k", "v")));

      // Many, few at a time.
      publish(publisher, n -> "");
      AtomicInteger held = new AtomicInteger();
      AtomicInteger most = new AtomicInteger();
      List<Integer> numbers = new CopyOnWriteArrayList<>();
      FlowControlSettings few = FlowControlSettings.newBuilder().setMaxOutstandingElementCount(5L).build();
      receive(Subscriber.newBuilder(sub, (PubsubMessage message, AckReplyConsumer reply) -> {
        most.accumulateAndGet(held.incrementAndGet(), Math::max);
        numbers.add(number(message));
        held.decrementAndGet();
        reply.ack();
      }).setFlowControlSettings(few), () -> numbers.size() >= COUNT);
      check("each once", numbers.stream().sorted().toList(), IntStream.range(0, COUNT).boxed().toList());
      check("flow control", most.get() <= 5);

      // In order by key.
      subscriptions.createSubscription(Subscription.newBuilder().setName(ordered).setTopic(name).setEnableMessageOrdering(true).build());
      Publisher inOrder = Publisher.newBuilder(name).setEnableMessageOrdering(true).build();
      publish(inOrder, n -> n % 2 == 0 ? "a" : "b");
      Map<String, List<Integer>> byKey = new ConcurrentHashMap<>();
      receive(Subscriber.newBuilder(ordered, (PubsubMessage message, AckReplyConsumer reply) -> {
        byKey.computeIfAbsent(message.getOrderingKey(), key -> new CopyOnWriteArrayList<>()).add(number(message));
        reply.ack();
      }), () -> byKey.values().stream().mapToInt(List::size).sum() >= COUNT);
      for (int odd = 0; odd < 2; odd++) {
        int first = odd;
        List<Integer> expect = IntStream.range(0, COUNT / 2).map(n -> 2 * n + first).boxed().toList();
        check("in order", byKey.get(odd == 0 ? "a" : "b"), expect);
      }
      inOrder.shutdown();

      // Pushed; that it came is seen from outside.
      PushConfig.OidcToken token = PushConfig.OidcToken.newBuilder().setServiceAccountEmail(world.account()).setAudience(world.url()).build();
      PushConfig config = PushConfig.newBuilder().setPushEndpoint(world.url()).setOidcToken(token).build();
      subscriptions.createSubscription(Subscription.newBuilder().setName(push).setTopic(name).setPushConfig(config).build());
      publisher.publish(message("pushed", "")).get();
      publisher.shutdown();
      Iterable<Subscription> listed = subscriptions.listSubscriptions("projects/" + world.project()).iterateAll();
      check("subscriptions", StreamSupport.stream(listed.spliterator(), false).map(Subscription::getName).sorted().toList(), List.of(ordered, push, sub));
      subscriptions.deleteSubscription(sub);
      refused("deleted", Code.NOT_FOUND, () -> subscriptions.getSubscription(sub));
    }
  }

  private static PubsubMessage message(String text, String key) {
    return PubsubMessage.newBuilder().setData(ByteString.copyFromUtf8(text)).setOrderingKey(key).build();
  }

  private static int number(PubsubMessage message) {
    return Integer.parseInt(message.getData().toStringUtf8());
  }

  private static void publish(Publisher publisher, IntFunction<String> key) throws Exception {
    List<ApiFuture<String>> sent = new ArrayList<>();
    for (int n = 0; n < COUNT; n++) {
      sent.add(publisher.publish(message(Integer.toString(n), key.apply(n))));
    }
    ApiFutures.allAsList(sent).get();
  }

  /** Streams until it has all. */
  private static void receive(Subscriber.Builder builder, Callable<Boolean> isAll) throws Exception {
    Subscriber subscriber = builder.build();
    subscriber.startAsync().awaitRunning();
    eventually("all messages", isAll);
    subscriber.stopAsync().awaitTerminated();
  }
}
