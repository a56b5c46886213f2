package functions;

import com.google.cloud.functions.CloudEventsFunction;
import com.google.gson.Gson;
import io.cloudevents.CloudEvent;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.logging.Logger;

/** A message came: greets whom it names. */
public class HelloPubSub implements CloudEventsFunction {
  private record Published(Message message) {}

  private record Message(String data) {}

  private static final Logger LOGGER = Logger.getLogger(HelloPubSub.class.getName());
  private static final Gson GSON = new Gson();

  @Override
  public void accept(CloudEvent event) {
    String json = new String(event.getData().toBytes(), StandardCharsets.UTF_8);
    String data = GSON.fromJson(json, Published.class).message().data();
    String name = data == null ? "World" : new String(Base64.getDecoder().decode(data), StandardCharsets.UTF_8);
    LOGGER.info("Hello, " + name + "!");
  }
}
