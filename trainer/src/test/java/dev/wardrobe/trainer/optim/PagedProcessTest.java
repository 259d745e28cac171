package dev.wardrobe.trainer.optim;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.junit.jupiter.api.io.TempDir;

/** What paging is for, as the operating system sees it. */
@EnabledOnOs(OS.LINUX)
final class PagedProcessTest {
  private static final long MIB = 1 << 20;

  @TempDir Path folder;

  @Test
  void aTenth_isThatMuchLessMemory() throws Exception {
    int elements = 8 << 20;
    long state = 8L * elements;
    Map<String, String> all = run("", "all", state, 3, elements);
    Map<String, String> tenth = run("", "tenth", state / 10, 3, elements);
    assertThat(tenth.get("values")).isEqualTo(all.get("values"));
    assertThat(Long.parseLong(all.get("frames"))).isEqualTo(state);
    assertThat(Long.parseLong(tenth.get("frames"))).isLessThanOrEqualTo(state / 10);
    long saved = Long.parseLong(all.get("anonymous")) - Long.parseLong(tenth.get("anonymous"));
    assertThat(saved).isGreaterThan(state * 9 / 10 - 12 * MIB);
  }

  /** Where memory is limited, all of the state does not fit and a tenth does. */
  @Test
  void aTenth_fitsWhereAllDoesNot() throws Exception {
    int elements = 16 << 20;
    long state = 8L * elements;
    Map<String, String> free = run("", "free", state / 10, 1, elements);
    long enough = Long.parseLong(free.get("data")) + state / 3;
    String limit = "ulimit -d " + enough / 1024 + "; ";
    Map<String, String> tenth = run(limit, "tenth", state / 10, 1, elements);
    assertThat(tenth).containsEntry("values", free.get("values"));
    Map<String, String> all = run(limit, "all", state, 1, elements);
    assertThat(all).doesNotContainKey("values");
  }

  @Test
  void failedWrite_leavesARunThatGoesOn() throws Exception {
    int elements = 300_000;
    long budget = 600_000;
    Map<String, String> whole = run("", "whole", budget, 4, elements);
    // The file of state that is saved fits into the limit, the pages of the rest do not.
    Map<String, String> first = run("", "broken", budget, 2, elements);
    assertThat(first).containsEntry("steps", "2");
    Map<String, String> failed = run("ulimit -f 1000; ", "broken", budget, 4, elements);
    assertThat(failed.get("error"))
        .startsWith("optimizer state: writing page ")
        .contains("File too large", "resume from the last checkpoint");
    assertThat(failed).doesNotContainKey("values");
    try (var left = Files.list(folder.resolve("broken").resolve("pages"))) {
      assertThat(left).isEmpty();
    }
    Map<String, String> resumed = run("", "broken", budget, 4, elements);
    assertThat(resumed).containsEntry("steps", "4");
    assertThat(Files.mismatch(folder.resolve("whole/state"), folder.resolve("broken/state")))
        .isEqualTo(-1);
    assertThat(whole).containsEntry("steps", "4");
  }

  private Map<String, String> run(String before, String name, long budget, int steps, int elements)
      throws IOException, InterruptedException {
    Path own = Files.createDirectories(folder.resolve(name));
    String classes =
        System.getProperty("surefire.test.class.path", System.getProperty("java.class.path"));
    List<String> command =
        List.of(
            "/bin/sh",
            "-c",
            before + "exec \"$@\"",
            "sh",
            Path.of(System.getProperty("java.home"), "bin", "java").toString(),
            "-Xms400m",
            "-Xmx400m",
            "-XX:+UseSerialGC",
            "-XX:+AlwaysPreTouch",
            "-XX:TieredStopAtLevel=1",
            "--add-modules",
            "jdk.incubator.vector",
            "--enable-native-access=ALL-UNNAMED",
            "-cp",
            classes,
            PagedProcess.class.getName(),
            own.toString(),
            Long.toString(budget),
            Integer.toString(steps),
            Integer.toString(elements));
    Path output = folder.resolve("output");
    Process process =
        new ProcessBuilder(new ArrayList<>(command))
            .directory(folder.toFile())
            .redirectErrorStream(true)
            .redirectOutput(output.toFile())
            .start();
    assertThat(process.waitFor(300, TimeUnit.SECONDS)).as("ended").isTrue();
    Map<String, String> said = new HashMap<>();
    for (String line : Files.readString(output, StandardCharsets.UTF_8).split("\n", -1)) {
      int at = line.indexOf('=');
      if (at > 0) {
        said.put(line.substring(0, at), line.substring(at + 1));
      }
    }
    return said;
  }
}
