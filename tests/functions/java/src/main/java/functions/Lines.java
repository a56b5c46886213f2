package functions;

import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;

/** Stdout and stderr in UTF-8: those of System write "?" for all but ASCII when no locale is set. */
final class Lines {
  static final PrintStream OUT = utf8(FileDescriptor.out);
  static final PrintStream ERR = utf8(FileDescriptor.err);

  private Lines() {}

  private static PrintStream utf8(FileDescriptor file) {
    return new PrintStream(new FileOutputStream(file), true, StandardCharsets.UTF_8);
  }
}
