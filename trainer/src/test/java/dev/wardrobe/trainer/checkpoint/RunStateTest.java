package dev.wardrobe.trainer.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import java.util.Map;
import org.junit.jupiter.api.Test;

final class RunStateTest {
  @Test
  void evaluated_stopsAfterPatience() {
    RunState state = RunState.START.stepped(10).evaluated(2, 0, 2);
    assertThat(state.best()).isEqualTo(1);
    state = state.stepped(10).evaluated(2, 0, 2);
    assertThat(state.sinceBest()).isEqualTo(1);
    assertThat(state.stopped()).isFalse();
    assertThat(state.stepped(10).evaluated(1.5, 0, 2).best()).isEqualTo(3);
    state = state.stepped(10).evaluated(Double.NaN, 0, 2);
    assertThat(state.stopped()).isTrue();
    assertThat(state.best()).isEqualTo(1);
    assertThat(state.bestLoss()).isEqualTo(2);
  }

  @Test
  void evaluated_lessBetterThanAsked_isNoImprovement() {
    RunState state = RunState.START.stepped(1).evaluated(2, 0.1, 0).stepped(1);
    assertThat(state.evaluated(1.95, 0.1, 0).best()).isEqualTo(1);
    assertThat(state.evaluated(1.85, 0.1, 0).best()).isEqualTo(2);
  }

  @Test
  void evaluated_withoutPatience_goesOn() {
    RunState state = RunState.START.evaluated(1, 0, 0);
    for (int i = 0; i < 100; i++) {
      state = state.evaluated(3, 0, 0);
    }
    assertThat(state.stopped()).isFalse();
  }

  @Test
  void skipped_countsInARow() {
    RunState state = RunState.START.skipped(1).skipped(1);
    assertThat(state.skippedInRow()).isEqualTo(2);
    state = state.stepped(1).skipped(1);
    assertThat(state.skipped()).isEqualTo(3);
    assertThat(state.skippedInRow()).isEqualTo(1);
    assertThat(state.step()).isEqualTo(4);
    assertThat(state.tokens()).isEqualTo(4);
  }

  @Test
  void json_comesBackToTheBit() throws Exception {
    RunState state = RunState.START.stepped(7).evaluated(1 / 3.0, 0, 3).skipped(1);
    String text = state.json().toString();
    assertThat(RunState.of(new ObjectMapper().readTree(text))).isEqualTo(state);
    assertThat(RunState.of(RunState.START.json())).isEqualTo(RunState.START);
  }

  @Test
  void of_otherJson_isRefused() {
    assertThatThrownBy(() -> RunState.of(JsonNodeFactory.instance.objectNode()))
        .isInstanceOf(CheckpointException.class);
  }

  @Test
  void differences_areNamed() {
    RunIdentity before = new RunIdentity("b", "d", Map.of("lr", "1e-4", "rank", "8"));
    RunIdentity now = new RunIdentity("c", "d", Map.of("lr", "2e-4", "seed", "1", "rank", "8"));
    assertThat(before.differences(before)).isEmpty();
    assertThat(before.differences(now))
        .containsExactly(
            "the base was b, and is c",
            "--lr was 1e-4, and is 2e-4",
            "--seed was not set, and is 1");
    assertThat(RunIdentity.of(now.json())).isEqualTo(now);
  }
}
