package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.offset;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.wardrobe.compute.cuda.Emulator;
import dev.wardrobe.engine.TestBase;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Commands with {@code --backend cuda}, on the emulator. */
final class CudaCommandTest {
  /** See KernelImages: the emulator takes no other kernels than those compiled for it. */
  private static final String IMAGE = "wardrobe.cuda.image";

  @TempDir private Path folder;

  private Emulator emulate() throws Exception {
    Emulator emulator = Emulator.load();
    emulator.reset();
    Path image = folder.resolve("kernels");
    Files.write(image, emulator.image());
    System.setProperty(IMAGE, image.toString());
    return emulator;
  }

  @Test
  void batch_answersAsOnTheCpu() throws Exception {
    Emulator emulator = emulate();
    try {
      List<String> requests =
          List.of(
              "{\"token_ids\":[1,2,3],\"max_tokens\":6,\"temperature\":0,\"logprobs\":2}",
              "{\"token_ids\":[5,6],\"max_tokens\":6,\"temperature\":0,\"adapter\":\"good\"}");
      BatchRun device = batch(requests, "cuda");
      BatchRun cpu = batch(requests, "cpu");
      assertThat(device.err()).contains("2 answered, 0 failed");
      assertThat(emulator.count("graphs")).as("graph launches").isPositive();
      for (int i = 0; i < requests.size(); i++) {
        assertThat(device.lines().get(i).path("token_ids"))
            .isEqualTo(cpu.lines().get(i).path("token_ids"));
      }
      JsonNode first = device.lines().getFirst().path("logprobs").path(0);
      JsonNode same = cpu.lines().getFirst().path("logprobs").path(0);
      assertThat(first.path("logprob").asDouble(Double.NaN))
          .isCloseTo(same.path("logprob").asDouble(Double.NaN), offset(0.1));
    } finally {
      System.clearProperty(IMAGE);
    }
    assertThat(emulator.reset()).as("device memory that is left").isZero();
  }

  private BatchRun batch(List<String> requests, String backend) throws Exception {
    return BatchRun.of(
        folder,
        requests,
        "--model",
        TestBase.resource("models/llama_mha-nf4-dq").toString(),
        "--adapter",
        "good=" + TestBase.resource("adapters/llama_mha/lora_r8_qv"),
        "--memory-mib",
        "8",
        "--backend",
        backend);
  }

  @Test
  void bench_reportsADevice() throws Exception {
    Emulator emulator = emulate();
    StringWriter err = new StringWriter();
    Path out = folder.resolve("report");
    try {
      int exit =
          Main.commandLine()
              .setErr(new PrintWriter(err, true))
              .setOut(new PrintWriter(new StringWriter()))
              .execute(
                  "bench",
                  "device",
                  "--shape",
                  "tiny",
                  "--large",
                  "tiny",
                  "--batch",
                  "1,2",
                  "--prompt",
                  "8",
                  "--adapters",
                  "2",
                  "--rank",
                  "4",
                  "--steps",
                  "2",
                  "--reps",
                  "1",
                  "--out",
                  out.toString());
      assertThat(exit).as(err.toString()).isZero();
    } finally {
      System.clearProperty(IMAGE);
    }
    JsonNode report = new ObjectMapper().readTree(out.resolve("device.json").toFile());
    assertThat(report.path("copy_bytes_per_second").asDouble()).isPositive();
    assertThat(report.path("cases")).hasSize(5);
    for (JsonNode each : report.path("cases")) {
      assertThat(each.path("tokens_per_second").asDouble()).isPositive();
    }
    assertThat(report.path("swap_in")).hasSize(3);
    assertThat(report.path("large").path("bytes").asLong())
        .isEqualTo(report.path("model").path("bytes").asLong());
    assertThat(out.resolve("device.md")).content().contains("| batch | 2 |");
    assertThat(emulator.reset()).as("device memory that is left").isZero();
  }

  @Test
  void cuda_withoutADriver() throws Exception {
    Assumptions.assumeFalse(
        Files.exists(Path.of("/proc/driver/nvidia/version")), "this machine has a CUDA driver");
    Process process =
        new ProcessBuilder(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "--add-modules=jdk.incubator.vector",
                "--enable-native-access=ALL-UNNAMED",
                "-cp",
                System.getProperty(
                    "surefire.test.class.path", System.getProperty("java.class.path")),
                Main.class.getName(),
                "batch",
                "--backend",
                "cuda",
                "--model",
                TestBase.resource("models/llama_mha-nf4-dq").toString(),
                "--in",
                "/dev/null",
                "--out",
                "-")
            .redirectOutput(ProcessBuilder.Redirect.DISCARD)
            .start();
    String said = new String(process.getErrorStream().readAllBytes(), StandardCharsets.UTF_8);
    assertThat(process.waitFor(1, TimeUnit.MINUTES)).isTrue();
    assertThat(process.exitValue()).isEqualTo(1);
    assertThat(said)
        .contains("--backend cuda")
        .contains("libcuda.so.1")
        .contains("--backend cpu needs no device");
  }

  @Test
  void backend_unknown() throws Exception {
    BatchRun run = batch(List.of(), "gpu");
    assertThat(run.exit()).isEqualTo(2);
    assertThat(run.err()).contains("--backend").contains("auto, cpu or cuda").contains("gpu");
  }
}
