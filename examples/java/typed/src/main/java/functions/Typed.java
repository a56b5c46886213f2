package functions;

import com.google.cloud.functions.TypedFunction;

/** Greets a person: the framework turns JSON into a Person, and a Greeting into JSON. */
public class Typed implements TypedFunction<Typed.Person, Typed.Greeting> {
  /** Whom to greet. */
  public record Person(String name) {}

  /** What to say. */
  public record Greeting(String greeting) {}

  @Override
  public Greeting apply(Person person) {
    return new Greeting("Hello " + person.name() + "!");
  }
}
