package functions;

import com.google.cloud.functions.HttpFunction;
import com.google.cloud.functions.HttpRequest;
import com.google.cloud.functions.HttpResponse;
import java.io.BufferedWriter;
import java.io.IOException;

/** Sends five lines, one every 200 ms. */
public class Streaming implements HttpFunction {
  @Override
  public void service(HttpRequest request, HttpResponse response) throws IOException, InterruptedException {
    response.setContentType("text/plain; charset=utf-8");
    BufferedWriter writer = response.getWriter();
    for (int number = 1; number <= 5; number++) {
      writer.write("line " + number + "\n");
      writer.flush();
      Thread.sleep(200);
    }
  }
}
