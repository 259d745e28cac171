package dev.wardrobe.trainer.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class CheckpointsTest {
  private static final RunIdentity RUN = new RunIdentity("b", "d", Map.of("lr", "1e-4"));

  @TempDir private Path output;
  private Checkpoints checkpoints;

  @BeforeEach
  void open() {
    checkpoints = new Checkpoints(output, 2);
  }

  private static RunState at(int step) {
    RunState state = RunState.START;
    for (int i = 0; i < step; i++) {
      state = state.stepped(1);
    }
    return state;
  }

  private void save(int step) throws IOException {
    checkpoints.save(RUN, at(step), to -> Files.writeString(to.resolve("adapter"), "at " + step));
  }

  private List<String> names() throws IOException {
    try (Stream<Path> all = Files.list(output.resolve(Checkpoints.FOLDER))) {
      return all.map(path -> path.getFileName().toString()).sorted().toList();
    }
  }

  @Test
  void latest_ofNone_isNull() throws IOException {
    assertThat(checkpoints.latest()).isNull();
  }

  @Test
  void save_keepsTheLast() throws IOException {
    for (int step : new int[] {1, 9, 10, 100}) {
      save(step);
    }
    assertThat(names()).containsExactly("step-00000010", "step-00000100");
    Checkpoints.Checkpoint latest = checkpoints.latest();
    assertThat(latest).isNotNull();
    assertThat(latest.state()).isEqualTo(at(100));
    assertThat(latest.identity()).isEqualTo(RUN);
    assertThat(latest.folder().resolve("adapter")).hasContent("at 100");
  }

  @Test
  void save_thatFails_leavesTheOnesBefore() throws IOException {
    save(1);
    assertThatThrownBy(
            () ->
                checkpoints.save(
                    RUN,
                    at(2),
                    to -> {
                      Files.writeString(to.resolve("adapter"), "half");
                      throw new IOException("No space left on device");
                    }))
        .hasMessage("No space left on device");
    assertThat(names()).containsExactly("step-00000001");
    assertThat(checkpoints.latest().state().step()).isEqualTo(1);
  }

  @Test
  void tidy_removesWhatWasNotCompleted() throws IOException {
    save(1);
    Path half = output.resolve(Checkpoints.FOLDER).resolve(Disk.UNFINISHED + "step-00000002");
    Files.createDirectories(half);
    Files.writeString(half.resolve("adapter"), "half");
    assertThat(checkpoints.latest().state().step()).isEqualTo(1);
    checkpoints.tidy();
    assertThat(names()).containsExactly("step-00000001");
    save(2);
    assertThat(checkpoints.latest().state().step()).isEqualTo(2);
  }

  @Test
  void latest_damaged_isSaid() throws IOException {
    save(1);
    Path state = output.resolve(Checkpoints.FOLDER).resolve("step-00000001").resolve("state.json");
    for (String text : new String[] {"", "[", "{}", "{\"format\":1}", "{\"format\":2}"}) {
      Files.writeString(state, text);
      assertThatThrownBy(checkpoints::latest)
          .isInstanceOf(CheckpointException.class)
          .hasMessageContaining("step-00000001")
          .hasMessageContaining("delete that folder");
    }
    Files.delete(state);
    assertThatThrownBy(checkpoints::latest).isInstanceOf(CheckpointException.class);
  }

  @Test
  void best_isOne() throws IOException {
    for (int step : new int[] {5, 10}) {
      int at = step;
      checkpoints.best(step, to -> Files.writeString(to.resolve("adapter"), "best " + at));
    }
    assertThat(names()).containsExactly("best-00000010");
    assertThat(checkpoints.best(10).resolve("adapter")).hasContent("best 10");
  }

  @Test
  void text_replacesWhole() throws IOException {
    Path file = output.resolve("README.md");
    Disk.text(file, "one");
    Disk.text(file, "two");
    assertThat(file).hasContent("two");
    try (Stream<Path> all = Files.list(output)) {
      assertThat(all).hasSize(1);
    }
  }
}
