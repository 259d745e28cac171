package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The script that measures starts, with a launcher that only pretends. */
final class StartingTest {
  private static final Path ROOT = Path.of(System.getProperty("wardrobe.root"));

  @TempDir private Path dir;

  private record Run(int exit, String text) {}

  @BeforeEach
  void needsPython() throws Exception {
    assumeTrue(Files.isReadable(Path.of("/proc/self/smaps_rollup")), "not on Linux");
    assumeTrue(run(List.of("python3", "--version")).exit() == 0, "python3 is not installed");
    Files.createFile(dir.resolve("tokenizer.json"));
  }

  @Test
  void memoryWithinTheBound() throws Exception {
    launcher(100_000_000, 200_000_000);
    Path json = dir.resolve("out.json");
    Run run = script("--requests", "10", "--batches", "3", "--json", json.toString());
    assertThat(run.exit()).as(run.text()).isZero();
    assertThat(run.text())
        .containsPattern("(?m)^from source, at ready +\\d+ +\\d+ +\\d+ +0\\.\\d\\d\\d$")
        .containsPattern(
            "(?m)^  first token +50\\.0 ms the first, 5\\.0 ms the tenth, ratio 10\\.00$")
        .containsPattern("(?m)^batch, one token .*median");
    JsonNode report = new ObjectMapper().readTree(json.toFile());
    assertThat(report.get("bound_bytes").asLong()).isEqualTo(205_000_000);
    JsonNode start = report.get("starts").get("from cache");
    assertThat(start.get("requests")).hasSize(10);
    JsonNode memory = start.get("after_requests");
    assertThat(memory.get("total").asLong())
        .isEqualTo(memory.get("anonymous").asLong() + memory.get("mapped").asLong())
        .isPositive();
    assertThat(report.get("batch_seconds")).hasSize(3);
  }

  @Test
  void memoryBeyondTheBound_isExitCodeOne() throws Exception {
    launcher(0, 1000);
    Run run = script("--requests", "0", "--batches", "0");
    assertThat(run.exit()).as(run.text()).isEqualTo(1);
    assertThat(run.text()).contains("inspect expects");
  }

  @Test
  void refused_inOneLine() throws Exception {
    program("case $1 in inspect) echo no such model >&2; exit 3 ;; esac");
    Run run = script();
    assertThat(run.exit()).isEqualTo(1);
    assertThat(run.text()).contains("ended with 3: no such model").hasLineCount(1);
  }

  /** One whose first request takes ten times as long as the others. */
  private void launcher(long jvm, long total) throws IOException {
    program(
        "case $1 in",
        "  inspect) echo '{\"resident\": {\"jvm_bytes\": "
            + jvm
            + ", \"total_bytes\": "
            + total
            + "}}' ;;",
        "  serve)",
        "    rm -f '" + dir + "/asked'",
        "    while [ $# -gt 0 ]; do [ $1 = --port-file ] && echo 7 > $2; shift; done",
        "    echo ready",
        "    exec sleep 100 ;;",
        "  generate)",
        "    ms=5; [ -e '" + dir + "/asked' ] || ms=50; touch '" + dir + "/asked'",
        "    echo '{\"usage\": {\"first_token_ms\": '$ms', \"total_ms\": '$ms'}}' ;;",
        "  batch)",
        "    while [ $# -gt 0 ]; do [ $1 = --out ] && echo '{\"token_ids\": [1]}' > $2; shift; done"
            + " ;;",
        "esac");
  }

  private void program(String... lines) throws IOException {
    List<String> all = new ArrayList<>(List.of("#!/bin/sh"));
    all.addAll(List.of(lines));
    Path file = Files.write(dir.resolve("wardrobe"), all);
    assertThat(file.toFile().setExecutable(true)).isTrue();
  }

  private Run script(String... arguments) throws Exception {
    List<String> command =
        new ArrayList<>(
            List.of(
                "python3",
                ROOT.resolve("deploy/bench/starting").toString(),
                "--model",
                dir.toString(),
                "--wardrobe",
                dir.resolve("wardrobe").toString()));
    command.addAll(List.of(arguments));
    return run(command);
  }

  private Run run(List<String> command) throws InterruptedException {
    Path text = dir.resolve("text");
    try {
      Process process =
          new ProcessBuilder(command)
              .redirectErrorStream(true)
              .redirectOutput(text.toFile())
              .start();
      try {
        assertThat(process.waitFor(2, TimeUnit.MINUTES)).as("%s ended", command).isTrue();
        return new Run(process.exitValue(), Files.readString(text));
      } finally {
        process.destroyForcibly();
      }
    } catch (IOException e) {
      return new Run(-1, e.toString());
    }
  }
}
