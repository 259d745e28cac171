package dev.wardrobe;

import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.util.Optional;
import java.util.concurrent.ThreadFactory;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Threads that leave the processors to others that want them. Making an adapter resident is a tenth
 * of a second of work or more, in the midst of steps that need every processor: at equal rights all
 * running answers would wait for it.
 */
final class BackgroundThreads implements ThreadFactory {
  private static final Logger log = LoggerFactory.getLogger(BackgroundThreads.class);

  /** On Linux, where a thread has its own: about a seventh of a processor that others want too. */
  static final int NICENESS = 8;

  private static final int PRIO_PROCESS = 0;

  private final ThreadFactory threads;

  /**
   * @param name of the threads, before their number
   */
  BackgroundThreads(String name) {
    threads = Thread.ofPlatform().daemon().name(name, 0).factory();
  }

  @Override
  public Thread newThread(Runnable work) {
    return threads.newThread(
        () -> {
          stepBack();
          work.run();
        });
  }

  /** Java's own priorities are without effect on Linux unless the process is root's. */
  @SuppressWarnings("restricted") // two functions of the C library, whose types are these
  private static void stepBack() {
    if (!System.getProperty("os.name").equals("Linux")) {
      return;
    }
    Linker linker = Linker.nativeLinker();
    Optional<MemorySegment> identity = linker.defaultLookup().find("gettid");
    Optional<MemorySegment> priority = linker.defaultLookup().find("setpriority");
    if (identity.isEmpty() || priority.isEmpty()) {
      return;
    }
    try {
      MethodHandle gettid =
          linker.downcallHandle(identity.get(), FunctionDescriptor.of(ValueLayout.JAVA_INT));
      MethodHandle setpriority =
          linker.downcallHandle(
              priority.get(),
              FunctionDescriptor.of(
                  ValueLayout.JAVA_INT,
                  ValueLayout.JAVA_INT,
                  ValueLayout.JAVA_INT,
                  ValueLayout.JAVA_INT));
      int thread = (int) gettid.invokeExact();
      int failed = (int) setpriority.invokeExact(PRIO_PROCESS, thread, NICENESS);
      if (failed != 0) {
        log.debug("the system does not let background threads step back");
      }
    } catch (Throwable e) {
      log.debug("background threads cannot step back", e);
    }
  }
}
