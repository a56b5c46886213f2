package functions;

import com.google.cloud.functions.CloudEventsFunction;
import com.google.gson.Gson;
import io.cloudevents.CloudEvent;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.logging.Logger;

/** Logs the event's type and id, and of a Pub/Sub message its text. */
public class HelloCloudEvent implements CloudEventsFunction {
  private record Published(Message message) {}

  private record Message(String data) {}

  private static final Logger LOGGER = Logger.getLogger(HelloCloudEvent.class.getName());
  private static final Gson GSON = new Gson();

  @Override
  public void accept(CloudEvent event) {
    LOGGER.info("type: " + event.getType() + ", id: " + event.getId());
    if (event.getType().equals("google.cloud.pubsub.topic.v1.messagePublished")) {
      String json = new String(event.getData().toBytes(), StandardCharsets.UTF_8);
      String data = GSON.fromJson(json, Published.class).message().data();
      byte[] text = Base64.getDecoder().decode(data == null ? "" : data);
      LOGGER.info("text: " + new String(text, StandardCharsets.UTF_8));
    }
  }
}
