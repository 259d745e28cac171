package dev.wardrobe.trainer;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.fail;

import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Runs in processes of their own, ended from outside. */
final class ResumeTest {
  private static final int STEPS = 40;

  @TempDir private Path folder;

  private Process start(Path to, int steps, String... more) throws IOException {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.addAll(
        List.of(
            "--add-modules=jdk.incubator.vector",
            "--enable-native-access=ALL-UNNAMED",
            "--sun-misc-unsafe-memory-access=allow",
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-Xmx512m",
            "-cp",
            System.getProperty("surefire.test.class.path", System.getProperty("java.class.path")),
            "dev.wardrobe.Main",
            "train",
            "--model=" + TrainCommandTest.BASE.toAbsolutePath(),
            "--data=" + folder.resolve("data.jsonl"),
            "--eval-data=" + folder.resolve("eval.jsonl"),
            "--out=" + to,
            "--threads=2",
            "--rank=4",
            "--use-dora",
            "--dropout=0.1",
            "--optim=paged_adamw_8bit",
            "--min-8bit-size=512",
            "--paged-budget=1",
            "--max-steps=" + steps,
            "--lr=5e-3",
            "--eval-steps=7",
            "--seed=11"));
    command.addAll(List.of(more));
    return new ProcessBuilder(command)
        .redirectErrorStream(true)
        .redirectOutput(new File(to + ".log"))
        .start();
  }

  private static int steps(Path to) throws IOException {
    Path metrics = to.resolve("metrics.jsonl");
    if (!Files.exists(metrics)) {
      return -1;
    }
    try (Stream<String> lines = Files.lines(metrics)) {
      return (int) lines.count() - 1;
    }
  }

  private static void awaitStep(Process process, Path to, int step) throws Exception {
    long end = System.nanoTime() + TimeUnit.MINUTES.toNanos(3);
    while (steps(to) < step && process.isAlive()) {
      if (System.nanoTime() > end) {
        process.destroyForcibly();
        fail("no step %d in time: %s", step, Files.readString(Path.of(to + ".log")));
      }
      Thread.sleep(2);
    }
  }

  private static void finish(Process process, Path to, int exit) throws Exception {
    if (!process.waitFor(3, TimeUnit.MINUTES)) {
      process.destroyForcibly();
      fail("not at its end in time: %s", Files.readString(Path.of(to + ".log")));
    }
    assertThat(process.exitValue()).as(Files.readString(Path.of(to + ".log"))).isEqualTo(exit);
  }

  /** All of a line but the times. */
  private static List<String> metrics(Path to) throws IOException {
    return Files.readAllLines(to.resolve("metrics.jsonl")).stream()
        .map(line -> line.replaceAll(",\"(time|tokens_per_second|memory)\":[0-9.E-]+", ""))
        .toList();
  }

  @Test
  void killedAnywhere_andResumed_givesTheSameBits() throws Exception {
    TrainCommandTest.rows(folder.resolve("data.jsonl"), 60, 1);
    TrainCommandTest.rows(folder.resolve("eval.jsonl"), 6, 2);
    Path whole = folder.resolve("whole");
    finish(start(whole, STEPS, "--save-steps=3"), whole, 0);
    assertThat(metrics(whole)).hasSize(STEPS + 1);

    long seed = System.nanoTime();
    Random random = new Random(seed);
    Path parts = folder.resolve("parts");
    Process process = start(parts, STEPS, "--save-steps=3");
    int killed = 0;
    for (int i = 0; i < 3; i++) {
      awaitStep(process, parts, Math.max(0, steps(parts)) + random.nextInt(12));
      // Somewhere in a step, a checkpoint or an evaluation.
      Thread.sleep(random.nextInt(25));
      killed += process.isAlive() ? 1 : 0;
      process.destroyForcibly().waitFor();
      process = start(parts, STEPS, "--save-steps=3", "--resume");
    }
    finish(process, parts, 0);
    assertThat(killed).as("seed " + seed).isPositive();
    assertThat(parts.resolve("adapter_model.safetensors"))
        .as("seed " + seed)
        .hasSameBinaryContentAs(whole.resolve("adapter_model.safetensors"));
    String last = "checkpoints/step-%08d/".formatted(STEPS);
    assertThat(parts.resolve(last + "adapter_model.safetensors"))
        .as("seed " + seed)
        .hasSameBinaryContentAs(whole.resolve(last + "adapter_model.safetensors"));
    assertThat(parts.resolve(last + "optimizer.state"))
        .as("seed " + seed)
        .hasSameBinaryContentAs(whole.resolve(last + "optimizer.state"));
    assertThat(metrics(parts)).as("seed " + seed).isEqualTo(metrics(whole));
  }

  @Test
  void interrupted_endsAtACheckpoint_andGoesOn() throws Exception {
    TrainCommandTest.rows(folder.resolve("data.jsonl"), 60, 1);
    TrainCommandTest.rows(folder.resolve("eval.jsonl"), 6, 2);
    Path to = folder.resolve("out");
    // So many steps that it is not over before the signal comes.
    Process process = start(to, 100_000, "--save-steps=0");
    awaitStep(process, to, 5);
    // SIGTERM, which takes the same way as SIGINT.
    process.destroy();
    finish(process, to, 130);
    assertThat(Files.readString(Path.of(to + ".log")))
        .contains("Interrupted after step")
        .contains("--resume");
    int step = steps(to);
    assertThat(to.resolve("checkpoints/step-%08d".formatted(step))).isDirectory();
    assertThat(to.resolve("adapter_model.safetensors")).doesNotExist();

    Process second = start(to, 100_000, "--save-steps=0", "--resume");
    awaitStep(second, to, step + 2);
    second.destroy();
    finish(second, to, 130);
    assertThat(steps(to)).isGreaterThan(step);
    assertThat(Files.readString(Path.of(to + ".log"))).contains("Going on after step " + step);
  }
}
