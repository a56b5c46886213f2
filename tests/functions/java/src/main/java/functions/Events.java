package functions;

import com.google.cloud.functions.CloudEventsFunction;
import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.JsonPrimitive;
import com.google.gson.JsonSyntaxException;
import io.cloudevents.CloudEvent;
import io.cloudevents.CloudEventData;
import java.nio.charset.StandardCharsets;
import java.time.OffsetDateTime;
import java.time.format.DateTimeFormatter;

/** Writes down a CloudEvent. */
public class Events implements CloudEventsFunction {
  private static final Gson GSON = new GsonBuilder().disableHtmlEscaping().serializeNulls().create();

  @Override
  public void accept(CloudEvent event) {
    JsonObject line = new JsonObject();
    line.addProperty("kind", "cloudevent");
    line.addProperty("id", event.getId());
    line.addProperty("source", event.getSource().toString());
    line.addProperty("type", event.getType());
    line.addProperty("subject", event.getSubject());
    OffsetDateTime time = event.getTime();
    line.addProperty("time", time == null ? null : DateTimeFormatter.ISO_OFFSET_DATE_TIME.format(time));
    line.add("data", written(event.getData()));
    Lines.OUT.println(GSON.toJson(line));
  }

  /** Data as JSON can hold it: what is no JSON is written as text. */
  private static JsonElement written(CloudEventData data) {
    if (data == null) {
      return null;
    }
    String text = new String(data.toBytes(), StandardCharsets.UTF_8);
    try {
      return JsonParser.parseString(text);
    } catch (JsonSyntaxException e) {
      return new JsonPrimitive(text);
    }
  }
}
