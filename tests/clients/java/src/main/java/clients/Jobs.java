package clients;

import static clients.Checks.check;
import static clients.Checks.eventually;
import static clients.Checks.refused;

import com.google.api.gax.rpc.StatusCode.Code;
import com.google.cloud.scheduler.v1.CloudSchedulerClient;
import com.google.cloud.scheduler.v1.HttpTarget;
import com.google.cloud.scheduler.v1.Job;
import com.google.cloud.scheduler.v1.OidcToken;
import com.google.protobuf.ByteString;
import com.google.protobuf.FieldMask;
import java.util.List;
import java.util.stream.StreamSupport;

/** Jobs of Cloud Scheduler that call hello. */
final class Jobs {
  private Jobs() {}

  static void run(Clients.World world) throws Exception {
    String parent = world.parent();
    String name = parent + "/jobs/java-job";
    OidcToken token = OidcToken.newBuilder().setServiceAccountEmail(world.account()).setAudience(world.url()).build();
    HttpTarget target = HttpTarget.newBuilder().setUri(world.url()).setBody(ByteString.copyFromUtf8("{\"name\":\"job\"}"))
        .putHeaders("Content-Type", "application/json").setOidcToken(token).build();
    Job wanted = Job.newBuilder().setName(name).setHttpTarget(target).setSchedule("0 9 * * *").setTimeZone("Asia/Tokyo").build();
    try (CloudSchedulerClient client = CloudSchedulerClient.create()) {
      Job job = client.createJob(parent, wanted);
      check("a job", List.of(job.getName(), job.getState(), job.getAttemptDeadline().getSeconds()), List.of(name, Job.State.ENABLED, 180L));
      check("due at nine in Tokyo", job.getScheduleTime().getSeconds() % 86_400, 0L);
      check("jobs", StreamSupport.stream(client.listJobs(parent).iterateAll().spliterator(), false).map(Job::getName).toList(), List.of(name));
      refused("a job twice", Code.ALREADY_EXISTS, () -> client.createJob(parent, wanted));
      refused("a bad schedule", Code.INVALID_ARGUMENT, () -> client.createJob(parent, wanted.toBuilder().clearName().setSchedule("61 * * * *").build()));
      check("paused", client.pauseJob(name).getState(), Job.State.PAUSED);
      refused("paused twice", Code.FAILED_PRECONDITION, () -> client.pauseJob(name));
      check("resumed", client.resumeJob(name).getState(), Job.State.ENABLED);
      client.runJob(name);
      eventually("it runs", () -> client.getJob(name).hasStatus() && client.getJob(name).hasLastAttemptTime());
      check("it ran well", client.getJob(name).getStatus().getCode(), 0);
      Job change = Job.newBuilder().setName(name).setSchedule("every monday 09:00").build();
      Job changed = client.updateJob(change, FieldMask.newBuilder().addPaths("schedule").build());
      check("only what is named changes", List.of(changed.getSchedule(), changed.getTimeZone()), List.of("every monday 09:00", "Asia/Tokyo"));
      client.deleteJob(name);
      refused("deleted", Code.NOT_FOUND, () -> client.getJob(name));
    }
  }
}
