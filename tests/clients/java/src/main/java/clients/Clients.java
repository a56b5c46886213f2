package clients;

/**
 * Google's Java libraries against the server that this shell is set up for; the function hello is there.
 *
 * <p>Arguments: a key file of a service account that may read and write objects, and the account that calls services.
 */
public final class Clients {
  static final String REGION = "asia-northeast1";

  /** What all parts share. */
  record World(String project, String url, String keyFile, String account) {
    String parent() {
      return "projects/" + project + "/locations/" + REGION;
    }
  }

  private Clients() {}

  public static void main(String[] arguments) throws Exception {
    World world = new World(System.getenv("GOOGLE_CLOUD_PROJECT"), null, arguments[0], arguments[1]);
    world = new World(world.project(), Functions.run(world), world.keyFile(), world.account());
    Messages.run(world);
    Objects.run(world);
    Jobs.run(world);
    Secrets.run(world);
    Triggers.run(world);
    Checks.told();
    // Some libraries leave threads that are no daemons.
    System.exit(0);
  }
}
