package functions;

import com.google.cloud.functions.BackgroundFunction;
import com.google.cloud.functions.Context;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.logging.Logger;

/** A background function, as before CloudEvents: logs the type and id, and of a Pub/Sub message its text. */
public class HelloEvent implements BackgroundFunction<HelloEvent.Message> {
  /** A Pub/Sub message; other events leave its data empty. */
  public static class Message {
    String data = "";
  }

  private static final Logger LOGGER = Logger.getLogger(HelloEvent.class.getName());

  @Override
  public void accept(Message message, Context context) {
    LOGGER.info("type: " + context.eventType() + ", id: " + context.eventId());
    if (context.eventType().equals("google.pubsub.topic.publish")) {
      byte[] text = Base64.getDecoder().decode(message.data);
      LOGGER.info("text: " + new String(text, StandardCharsets.UTF_8));
    }
  }
}
