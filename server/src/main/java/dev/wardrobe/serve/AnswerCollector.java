package dev.wardrobe.serve;

import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateResponse;
import java.util.concurrent.CompletableFuture;

/** Puts an answer together, for those who want it whole. */
public final class AnswerCollector implements AnswerListener {
  private final GenerateResponse.Builder response = GenerateResponse.newBuilder();
  private final StringBuilder text = new StringBuilder();
  private final CompletableFuture<GenerateResponse> result = new CompletableFuture<>();

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
        .addAllPromptLogprobs(started.getPromptLogprobsList());
  }

  @Override
  public void delta(GenerateEvent.Delta delta) {
    text.append(delta.getText());
    response.addAllTokenIds(delta.getTokenIdsList()).addAllLogprobs(delta.getLogprobsList());
  }

  @Override
  public void finished(GenerateEvent.Finished finished) {
    result.complete(
        response
            .setText(text.toString())
            .setFinishReason(finished.getFinishReason())
            .setUsage(finished.getUsage())
            .build());
  }

  @Override
  public void failed(RequestException failure) {
    result.completeExceptionally(failure);
  }
}
