package dev.wardrobe.serve;

import dev.wardrobe.v1.Choice;
import dev.wardrobe.v1.FinishReason;
import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.GenerateResponse;
import dev.wardrobe.v1.Usage;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/** Puts answers together, for those who want them whole. */
public final class AnswerCollector implements AnswerListener {
  private final int kept;
  private final boolean ranked;
  private final GenerateResponse.Builder response = GenerateResponse.newBuilder();
  private final List<Growing> all = new ArrayList<>();
  private final CompletableFuture<GenerateResponse> result = new CompletableFuture<>();
  private int left;

  /** One of the answers. */
  private static final class Growing {
    final Choice.Builder choice = Choice.newBuilder();
    final StringBuilder text = new StringBuilder();
    Usage usage = Usage.getDefaultInstance();
  }

  /** For a request of one answer. */
  public AnswerCollector() {
    this(GenerateRequest.getDefaultInstance());
  }

  /** For as many answers as a request asks for. */
  public AnswerCollector(GenerateRequest request) {
    kept = request.hasN() ? request.getN() : 1;
    left = request.hasBestOf() ? request.getBestOf() : kept;
    ranked = left > kept;
  }

  /**
   * The answer, or a {@link RequestException}. Completed on the engine's thread: continue elsewhere
   * with whatever is not cheap.
   */
  public CompletableFuture<GenerateResponse> result() {
    return result;
  }

  @Override
  public void started(GenerateEvent.Started started) {
    response
        .setId(started.getId())
        .setAdapter(started.getAdapter())
        .setAdapterDigest(started.getAdapterDigest())
        .addAllAdapters(started.getAdaptersList())
        .addAllPromptLogprobs(started.getPromptLogprobsList());
    for (int i = 0; i < left; i++) {
      all.add(new Growing());
    }
  }

  @Override
  public void delta(GenerateEvent.Delta delta) {
    Growing answer = all.get(delta.getIndex());
    answer.text.append(delta.getText());
    answer.choice.addAllTokenIds(delta.getTokenIdsList()).addAllLogprobs(delta.getLogprobsList());
  }

  @Override
  public void finished(GenerateEvent.Finished finished) {
    Growing answer = all.get(finished.getIndex());
    answer.usage = finished.getUsage();
    answer
        .choice
        .setIndex(finished.getIndex())
        .setText(answer.text.toString())
        .setFinishReason(finished.getFinishReason())
        .setSeed(finished.getUsage().getSeed())
        .setMeanLogprob(finished.getMeanLogprob());
    if (--left == 0) {
      complete();
    }
  }

  private void complete() {
    List<Choice> choices = new ArrayList<>();
    for (Growing answer : all) {
      choices.add(answer.choice.build());
    }
    if (ranked) {
      // Stable: the first generated wins a tie.
      choices.sort(Comparator.comparingDouble(Choice::getMeanLogprob).reversed());
    }
    Choice best = choices.getFirst();
    response
        .setText(best.getText())
        .addAllTokenIds(best.getTokenIdsList())
        .addAllLogprobs(best.getLogprobsList())
        .setFinishReason(best.getFinishReason())
        .setUsage(usage());
    if (all.size() > 1) {
      response.addAllChoices(choices.subList(0, kept));
      // Then some of what was asked for is not there.
      choices.stream()
          .map(Choice::getFinishReason)
          .filter(AnswerCollector::cutShort)
          .findFirst()
          .ifPresent(response::setFinishReason);
    }
    result.complete(response.build());
  }

  private static boolean cutShort(FinishReason reason) {
    return reason == FinishReason.FINISH_REASON_DEADLINE
        || reason == FinishReason.FINISH_REASON_CANCELLED;
  }

  /** What all of them took; the prompt is one, and was waited for once. */
  private Usage usage() {
    Usage.Builder sum = all.getFirst().usage.toBuilder();
    for (Growing answer : all.subList(1, all.size())) {
      Usage each = answer.usage;
      sum.setGeneratedTokens(sum.getGeneratedTokens() + each.getGeneratedTokens())
          .setTotalMs(Math.max(sum.getTotalMs(), each.getTotalMs()))
          .setSteps(Math.max(sum.getSteps(), each.getSteps()))
          .setMaxStepSequences(Math.max(sum.getMaxStepSequences(), each.getMaxStepSequences()))
          .setMaxStepAdapters(Math.max(sum.getMaxStepAdapters(), each.getMaxStepAdapters()));
    }
    return sum.build();
  }

  @Override
  public void failed(RequestException failure) {
    result.completeExceptionally(failure);
  }
}
