package functions;

import com.google.cloud.functions.CloudEventsFunction;
import com.google.gson.Gson;
import io.cloudevents.CloudEvent;
import java.nio.charset.StandardCharsets;
import java.util.logging.Logger;

/** A file was uploaded: logs what happened to which object. */
public class HelloStorage implements CloudEventsFunction {
  private record StorageObject(String bucket, String name, long size) {}

  private static final Logger LOGGER = Logger.getLogger(HelloStorage.class.getName());
  private static final Gson GSON = new Gson();

  @Override
  public void accept(CloudEvent event) {
    StorageObject object = GSON.fromJson(new String(event.getData().toBytes(), StandardCharsets.UTF_8), StorageObject.class);
    LOGGER.info(event.getType() + ": gs://" + object.bucket() + "/" + object.name() + ", " + object.size() + " bytes");
  }
}
