package functions;

import com.google.cloud.functions.HttpFunction;
import com.google.cloud.functions.HttpRequest;
import com.google.cloud.functions.HttpResponse;
import com.google.gson.Gson;
import java.io.IOException;

/** Answers "Hello NAME!" with the name from the JSON body, else from the query, else "World". */
public class HelloHttp implements HttpFunction {
  private record Person(String name) {}

  private static final Gson GSON = new Gson();

  @Override
  public void service(HttpRequest request, HttpResponse response) throws IOException {
    String name = request.getFirstQueryParameter("name").orElse("World");
    if (request.getContentType().orElse("").startsWith("application/json")) {
      Person person = GSON.fromJson(request.getReader(), Person.class);
      if (person != null && person.name() != null) {
        name = person.name();
      }
    }
    response.setContentType("text/plain; charset=utf-8");
    response.getWriter().write("Hello " + name + "!");
  }
}
