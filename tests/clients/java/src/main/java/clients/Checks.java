package clients;

import com.google.api.gax.rpc.ApiException;
import com.google.api.gax.rpc.StatusCode;
import com.google.cloud.storage.StorageException;
import java.time.Duration;
import java.time.Instant;
import java.util.Objects;
import java.util.concurrent.Callable;

/** Counts what holds; the first thing that does not ends the program. */
final class Checks {
  private static final Duration PATIENCE = Duration.ofMinutes(1);
  private static int passed;

  private Checks() {}

  static void check(String what, Object seen, Object expect) {
    if (!Objects.equals(seen, expect)) {
      throw new AssertionError(what + ": " + seen + ", not " + expect);
    }
    passed++;
  }

  static void check(String what, boolean holds) {
    check(what, holds, true);
  }

  /** The call must be refused with this code of gRPC; gives the error. */
  static ApiException refused(String what, StatusCode.Code code, Callable<?> call) throws Exception {
    try {
      call.call();
    } catch (ApiException error) {
      check(what, error.getStatusCode().getCode(), code);
      return error;
    }
    throw new AssertionError(what + ": answered");
  }

  /** The call must be refused with this status. */
  static void refused(String what, int code, Callable<?> call) throws Exception {
    try {
      call.call();
    } catch (StorageException error) {
      check(what, error.getCode(), code);
      return;
    }
    throw new AssertionError(what + ": answered");
  }

  /** Looks again until it is so. */
  static void eventually(String what, Callable<Boolean> look) throws Exception {
    for (Instant end = Instant.now().plus(PATIENCE); !look.call(); Thread.sleep(100)) {
      if (Instant.now().isAfter(end)) {
        throw new AssertionError(what + ": never");
      }
    }
  }

  static void told() {
    System.out.println(passed + " checks passed");
  }
}
