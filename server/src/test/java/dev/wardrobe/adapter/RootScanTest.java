package dev.wardrobe.adapter;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Objects;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What is found under roots without reading weights. */
final class RootScanTest {
  private static final String CONFIG =
      "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8,\"target_modules\":[\"q_proj\"]%s}";

  @TempDir Path first;
  @TempDir Path second;
  private RootScan scan;

  @BeforeEach
  void open() throws Exception {
    scan =
        new RootScan(
            AdapterRoots.of(List.of(first, second)),
            AdapterOptions.DEFAULT.withMaxFileBytes(100),
            "base",
            new EventLog(0, 16));
  }

  private static void place(Path directory, String more) throws Exception {
    Files.createDirectories(directory);
    Files.writeString(directory.resolve(AdapterConfig.FILE), CONFIG.formatted(more));
    Files.write(directory.resolve(Adapter.WEIGHTS), new byte[] {1});
  }

  @Test
  void namesThatNoRequestCouldReach_areProblems() throws Exception {
    place(first.resolve("base"), "");
    place(first.resolve("team/versions"), "");
    place(first.resolve("team/base"), "");
    scan.run(() -> false);
    assertThat(found("base").problem()).contains("the base's").contains("choose another name");
    assertThat(found("team/versions").problem()).contains("/versions", "choose another name");
    assertThat(found("team/base").problem()).isNull();
  }

  private RootScan.Found found(String name) {
    return Objects.requireNonNull(scan.found().get(name), name);
  }

  @Test
  void run_findsWhatIsThere() throws Exception {
    place(first.resolve("a"), "");
    place(first.resolve("team/deep/b"), ",\"use_rslora\":true");
    place(first.resolve("a/checkpoint-5"), ",\"use_dora\":true");
    Files.createDirectories(first.resolve("empty/folder"));
    Files.writeString(first.resolve("file"), "no directory");
    place(second.resolve("a"), ",\"use_dora\":true");
    place(second.resolve("c"), "");
    ScanResult result = scan.run(() -> false);
    assertThat(scan.found().keySet()).containsExactly("a", "a/checkpoint-5", "c", "team/deep/b");
    assertThat(found("a"))
        .as("the first root's")
        .isEqualTo(new RootScan.Found("a", "lora", 4, null));
    assertThat(found("team/deep/b").kind()).isEqualTo("rslora");
    assertThat(found("a/checkpoint-5").kind()).isEqualTo("dora");
    assertThat(result.adapters()).isEqualTo(4);
    assertThat(result.broken()).isZero();
    assertThat(result.complete()).isTrue();
  }

  @Test
  void run_saysWhyOneIsBroken() throws Exception {
    place(first.resolve("pickle"), "");
    Files.move(
        first.resolve("pickle").resolve(Adapter.WEIGHTS),
        first.resolve("pickle/adapter_model.bin"));
    place(first.resolve("none"), "");
    Files.delete(first.resolve("none").resolve(Adapter.WEIGHTS));
    place(first.resolve("large"), "");
    Files.write(first.resolve("large").resolve(Adapter.WEIGHTS), new byte[101]);
    place(first.resolve("odd"), ",\"bias\":\"sometimes\"");
    Files.createDirectories(first.resolve("torn"));
    Files.writeString(first.resolve("torn").resolve(AdapterConfig.FILE), "{\"r\":");
    place(first.resolve("with space"), "");
    place(first.resolve("naïve\u202e"), "");
    place(first.resolve("good"), "");
    Files.createDirectories(first.resolve("huge"));
    Files.writeString(
        first.resolve("huge").resolve(AdapterConfig.FILE),
        " ".repeat(20 << 20),
        StandardCharsets.US_ASCII);
    ScanResult result = scan.run(() -> false);
    assertThat(found("pickle").problem()).contains("pickle");
    assertThat(found("none").problem()).contains(Adapter.WEIGHTS);
    assertThat(found("large").problem()).contains("100").contains("101");
    assertThat(found("odd").problem()).contains("sometimes");
    assertThat(found("torn").problem()).contains("JSON");
    assertThat(found("with space").problem()).contains("name");
    assertThat(found("naïve\\u202e").problem()).contains("name");
    assertThat(found("huge").problem()).contains("expected at most");
    assertThat(found("good").problem()).isNull();
    assertThat(result.adapters()).isEqualTo(9);
    assertThat(result.broken()).isEqualTo(8);
  }

  @Test
  void run_linksThatLeadOut_andInCircles() throws Exception {
    Path outside = Files.createTempDirectory(second.getParent(), "outside");
    try {
      place(outside.resolve("secret"), "");
      Files.createSymbolicLink(first.resolve("out"), outside.resolve("secret"));
      Files.createSymbolicLink(first.resolve("folder"), outside);
      Files.createSymbolicLink(first.resolve("loop"), first);
      place(first.resolve("a"), "");
      Files.createSymbolicLink(first.resolve("same"), first.resolve("a"));
      scan.run(() -> false);
      assertThat(scan.found().keySet()).containsExactly("a", "out", "same");
      assertThat(found("out").problem()).contains("out of");
      assertThat(found("same").problem()).isNull();
    } finally {
      Files.delete(outside.resolve("secret").resolve(AdapterConfig.FILE));
      Files.delete(outside.resolve("secret").resolve(Adapter.WEIGHTS));
      Files.delete(outside.resolve("secret"));
      Files.delete(outside);
    }
  }

  @Test
  void run_again_seesWhatCameAndWent() throws Exception {
    place(first.resolve("a"), "");
    place(first.resolve("b"), "");
    scan.run(() -> false);
    Files.delete(first.resolve("a").resolve(AdapterConfig.FILE));
    place(first.resolve("c"), "");
    Files.delete(first.resolve("b").resolve(Adapter.WEIGHTS));
    scan.run(() -> false);
    assertThat(scan.found().keySet()).containsExactly("b", "c");
    assertThat(found("b").problem()).isNotNull();
  }

  @Test
  void run_thatIsStopped_forgetsNothing() throws Exception {
    for (int i = 0; i < 10; i++) {
      place(first.resolve("a" + i), "");
    }
    scan.run(() -> false);
    int[] asked = {0};
    ScanResult result = scan.run(() -> ++asked[0] > 5);
    assertThat(result.complete()).isFalse();
    assertThat(result.toString()).contains("there may be more");
    assertThat(scan.found()).hasSize(10);
  }
}
