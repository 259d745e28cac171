package dev.wardrobe.trainer.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;

/**
 * How far a run is, beside its parameters and its optimizer's state. All else that a step needs
 * follows from its options and its number.
 *
 * @param step how many were made
 * @param tokens that went through the model
 * @param skipped how many steps changed nothing
 * @param skippedInRow how many of them at the end
 * @param best the step of the best evaluation, or -1
 * @param bestLoss its loss, or NaN
 * @param sinceBest evaluations since then
 * @param stopped whether it has ended before its last step, since evaluations got no better
 */
public record RunState(
    int step,
    long tokens,
    int skipped,
    int skippedInRow,
    int best,
    double bestLoss,
    int sinceBest,
    boolean stopped) {
  /** Before the first step. */
  public static final RunState START = new RunState(0, 0, 0, 0, -1, Double.NaN, 0, false);

  /** After a step that was taken. */
  public RunState stepped(long tokens) {
    return new RunState(
        step + 1, this.tokens + tokens, skipped, 0, best, bestLoss, sinceBest, stopped);
  }

  /** After a step that changed nothing. */
  public RunState skipped(long tokens) {
    return new RunState(
        step + 1,
        this.tokens + tokens,
        skipped + 1,
        skippedInRow + 1,
        best,
        bestLoss,
        sinceBest,
        stopped);
  }

  /**
   * After an evaluation.
   *
   * @param least by how much it must be better than the best to count
   * @param patience after so many that do not count the run ends; 0 for never
   */
  public RunState evaluated(double loss, double least, int patience) {
    // Written so that NaN is no improvement, and everything is one on nothing.
    if (loss < bestLoss - least || (best < 0 && !Double.isNaN(loss))) {
      return new RunState(step, tokens, skipped, skippedInRow, step, loss, 0, stopped);
    }
    return new RunState(
        step,
        tokens,
        skipped,
        skippedInRow,
        best,
        bestLoss,
        sinceBest + 1,
        patience > 0 && sinceBest + 1 >= patience);
  }

  ObjectNode json() {
    ObjectNode json = JsonNodeFactory.instance.objectNode();
    json.put("step", step);
    json.put("tokens", tokens);
    json.put("skipped", skipped);
    json.put("skipped_in_row", skippedInRow);
    json.put("best", best);
    if (best >= 0) {
      json.put("best_loss", bestLoss);
    }
    json.put("since_best", sinceBest);
    json.put("stopped", stopped);
    return json;
  }

  /**
   * A state read back.
   *
   * @throws CheckpointException if it is none
   */
  static RunState of(JsonNode json) throws CheckpointException {
    RunState state =
        new RunState(
            json.path("step").asInt(-1),
            json.path("tokens").asLong(-1),
            json.path("skipped").asInt(-1),
            json.path("skipped_in_row").asInt(-1),
            json.path("best").asInt(-2),
            json.path("best_loss").asDouble(Double.NaN),
            json.path("since_best").asInt(-1),
            json.path("stopped").asBoolean());
    if (state.step < 0
        || state.tokens < 0
        || state.skipped < 0
        || state.skippedInRow < 0
        || state.best < -1
        || state.best >= 0 == Double.isNaN(state.bestLoss)
        || state.sinceBest < 0) {
      throw new CheckpointException("expected a run's state, got " + json);
    }
    return state;
  }
}
