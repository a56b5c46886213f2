package functions;

import com.google.cloud.functions.Context;
import com.google.cloud.functions.RawBackgroundFunction;
import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;

/** Writes down an event of before CloudEvents. */
public class Legacy implements RawBackgroundFunction {
  private static final Gson GSON = new GsonBuilder().disableHtmlEscaping().serializeNulls().create();

  @Override
  public void accept(String json, Context context) {
    JsonObject line = new JsonObject();
    line.addProperty("kind", "event");
    line.addProperty("id", context.eventId());
    line.addProperty("timestamp", context.timestamp());
    line.addProperty("eventType", context.eventType());
    line.addProperty("resource", context.resource());
    line.add("data", JsonParser.parseString(json));
    Lines.OUT.println(GSON.toJson(line));
  }
}
