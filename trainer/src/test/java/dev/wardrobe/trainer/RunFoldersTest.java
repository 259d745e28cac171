package dev.wardrobe.trainer;

import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.v1.GetRunResponse;
import dev.wardrobe.v1.Run;
import dev.wardrobe.v1.TrainingPoint;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class RunFoldersTest {
  @TempDir private Path root;
  private RunFolders folders;

  @BeforeEach
  void open() {
    folders = new RunFolders(List.of(root));
  }

  private Path run(String name, String... lines) throws IOException {
    Path folder = Files.createDirectories(root.resolve(name));
    Files.writeString(folder.resolve("metrics.jsonl"), String.join("\n", lines));
    return folder;
  }

  private static void changed(Path file, Duration ago) throws IOException {
    Files.setLastModifiedTime(file, FileTime.from(Instant.now().minus(ago)));
  }

  private @Nullable GetRunResponse find(String name) throws IOException {
    return folders.get(name);
  }

  private GetRunResponse get(String name) throws IOException {
    return Objects.requireNonNull(find(name));
  }

  @Test
  void run_hasItsCurves_andItsState() throws IOException {
    Path folder =
        run(
            "letters",
            "{\"step\":0,\"eval_loss\":2.5,\"tokens\":0}",
            "{\"step\":1,\"epoch\":0.5,\"loss\":2.0,\"lr\":0.1,\"grad_norm\":3,\"tokens\":40}",
            "{\"step\":2,\"epoch\":1.0,\"loss\":1.5,\"eval_loss\":1.75,\"tokens\":80,\"memory\":9}",
            "{\"step\":3,\"lo");
    Path metrics = folder.resolve("metrics.jsonl");
    GetRunResponse response = get("letters");
    assertThat(response.getPointsList())
        .extracting(TrainingPoint::getStep)
        .containsExactly(0, 1, 2);
    assertThat(response.getPoints(0).hasLoss()).isFalse();
    assertThat(response.getPoints(1).getLearningRate()).isEqualTo(0.1);
    assertThat(response.getPoints(1).hasEvalLoss()).isFalse();
    Run run = response.getRun();
    assertThat(run.getStep()).isEqualTo(2);
    assertThat(run.getLoss()).isEqualTo(1.5);
    assertThat(run.getEvalLoss()).isEqualTo(1.75);
    assertThat(run.getTokens()).isEqualTo(80);
    assertThat(run.getState()).isEqualTo(Run.State.STATE_RUNNING);
    assertThat(folders.list()).containsExactly(run);
    changed(metrics, Duration.ofHours(1));
    assertThat(get("letters").getRun().getState()).isEqualTo(Run.State.STATE_STOPPED);
    Files.writeString(folder.resolve("adapter_config.json"), "{\"base_model_name_or_path\":\"b\"}");
    Files.writeString(folder.resolve("adapter_model.safetensors"), "");
    assertThat(folders.list().getFirst().getState()).isEqualTo(Run.State.STATE_FINISHED);
    assertThat(folders.list().getFirst().getBase()).isEqualTo("b");
    // It goes on.
    changed(folder.resolve("adapter_model.safetensors"), Duration.ofHours(2));
    changed(metrics, Duration.ZERO);
    assertThat(get("letters").getRun().getState()).isEqualTo(Run.State.STATE_RUNNING);
  }

  @Test
  void damagedFiles_areSaidToBe_andReadNoFurther() throws IOException {
    run("noise", "\u0000\u0001\u0002", "");
    run("words", "{\"step\":1,\"loss\":1}", "{\"step\":\"two\"}", "");
    run("negative", "{\"step\":-1}", "");
    run("long", "{\"step\":1,\"loss\":\"" + "x".repeat(200_000) + "\"}", "");
    run("deep", "[".repeat(5000), "");
    for (String name : List.of("noise", "words", "negative", "long", "deep")) {
      Run run = get(name).getRun();
      assertThat(run.getState()).as(name).isEqualTo(Run.State.STATE_BROKEN);
      assertThat(run.getProblem()).as(name).startsWith("metrics.jsonl: expected");
    }
    assertThat(get("words").getPointsList()).hasSize(1);
    run(
        "odd",
        "{\"step\":1,\"loss\":\"<b>\",\"eval_loss\":1e999,\"tokens\":-5,\"epoch\":null}",
        "");
    GetRunResponse odd = get("odd");
    assertThat(odd.getRun().getProblem()).isEmpty();
    assertThat(odd.getPoints(0).hasLoss()).isFalse();
    assertThat(odd.getPoints(0).hasEvalLoss()).isFalse();
    assertThat(odd.getRun().getTokens()).isZero();
    run("empty");
    assertThat(get("empty").getPointsList()).isEmpty();
    assertThat(folders.list()).hasSize(7);
  }

  @Test
  void namesThatAreNotListed_openNothing() throws IOException {
    Path elsewhere = Files.createDirectories(root.resolve("a/b/c"));
    Files.writeString(elsewhere.resolve("metrics.jsonl"), "{\"step\":1}\n");
    Files.createSymbolicLink(root.resolve("link"), elsewhere);
    Path linked = Files.createDirectories(root.resolve("linked"));
    Files.createSymbolicLink(linked.resolve("metrics.jsonl"), elsewhere.resolve("metrics.jsonl"));
    assertThat(folders.list()).isEmpty();
    for (String name :
        List.of("a/b/c", "../" + root.getFileName(), "", "/", "link", "linked", "..")) {
      assertThat(find(name)).as(name).isNull();
    }
  }

  @Test
  void runsOfOneName_areToldApart() throws IOException {
    run("one/same", "{\"step\":1}", "");
    run("two/same", "{\"step\":2}", "");
    folders = new RunFolders(List.of(root.resolve("one"), root.resolve("two/same")));
    assertThat(get("same").getRun().getStep()).isEqualTo(1);
    assertThat(get("two/same").getRun().getStep()).isEqualTo(2);
  }

  @Test
  void longRuns_keepTheirShape() throws IOException {
    StringBuilder text = new StringBuilder();
    for (int step = 1; step <= 50_000; step++) {
      text.append("{\"step\":").append(step).append(",\"loss\":1");
      text.append(step % 5000 == 0 ? ",\"eval_loss\":1}\n" : "}\n");
    }
    run("long", text.toString());
    GetRunResponse response = get("long");
    assertThat(response.getPointsCount())
        .isBetween(RunFolders.MOST_POINTS / 4, RunFolders.MOST_POINTS);
    assertThat(response.getPointsList()).filteredOn(TrainingPoint::hasEvalLoss).hasSize(10);
    assertThat(response.getPointsList())
        .isSortedAccordingTo((a, b) -> Integer.compare(a.getStep(), b.getStep()));
    assertThat(response.getRun().getStep()).isEqualTo(50_000);
    // All steps with an evaluation are bounded too.
    run("evaluated", text.toString().replace("\"loss\"", "\"eval_loss\":1,\"loss\""));
    assertThat(get("evaluated").getPointsCount()).isLessThanOrEqualTo(RunFolders.MOST_POINTS);
  }
}
