package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.Test;

final class BackgroundThreadsTest {
  private static int niceness() throws Exception {
    String line = Files.readString(Path.of("/proc/thread-self/stat"));
    // The thread's name, which may have spaces in it, is in brackets; niceness is the 19th field.
    return Integer.parseInt(line.substring(line.lastIndexOf(')') + 2).split(" ")[16]);
  }

  @Test
  void thread_stepsBack_andItsMakerDoesNot() throws Exception {
    assumeTrue(Files.isReadable(Path.of("/proc/thread-self/stat")), "not on Linux");
    int before = niceness();
    CompletableFuture<Integer> inside = new CompletableFuture<>();
    Thread thread =
        new BackgroundThreads("background-")
            .newThread(
                () -> {
                  try {
                    inside.complete(niceness());
                  } catch (Exception e) {
                    inside.completeExceptionally(e);
                  }
                });
    assertThat(thread.isDaemon()).isTrue();
    assertThat(thread.getName()).isEqualTo("background-0");
    thread.start();
    assertThat(inside.get()).isEqualTo(Math.max(before, BackgroundThreads.NICENESS));
    assertThat(niceness()).isEqualTo(before);
  }
}
