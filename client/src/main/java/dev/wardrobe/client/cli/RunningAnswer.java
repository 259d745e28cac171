package dev.wardrobe.client.cli;

import dev.wardrobe.client.WardrobeClient.AnswerListener;
import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateEvent.Finished;
import dev.wardrobe.v1.GenerateEvent.Started;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.jspecify.annotations.Nullable;

/** One streamed answer and when each of its tokens came. */
final class RunningAnswer implements AnswerListener {
  private static final long LIMIT_SECONDS = 300;

  private final String name;
  private final Runnable onChange;
  private final StringBuilder text = new StringBuilder();
  private final List<Integer> tokens = new ArrayList<>();
  private final List<Long> arrivals = new ArrayList<>();
  private final CompletableFuture<Finished> finished = new CompletableFuture<>();
  private Started started = Started.getDefaultInstance();

  /**
   * @param name what people call it
   * @param onChange called after every event
   */
  RunningAnswer(String name, Runnable onChange) {
    this.name = name;
    this.onChange = onChange;
  }

  String name() {
    return name;
  }

  synchronized String text() {
    return text.toString();
  }

  synchronized List<Integer> tokens() {
    return List.copyOf(tokens);
  }

  /** {@link System#nanoTime} of each token's arrival. */
  synchronized List<Long> arrivals() {
    return List.copyOf(arrivals);
  }

  synchronized String digest() {
    return started.getAdapterDigest();
  }

  Finished await() throws DemoException {
    try {
      return finished.get(LIMIT_SECONDS, TimeUnit.SECONDS);
    } catch (ExecutionException e) {
      throw new DemoException(
          name + ": " + Failure.of(e.getCause() == null ? e : e.getCause()).message(), e);
    } catch (TimeoutException e) {
      throw new DemoException(name + ": no answer within " + LIMIT_SECONDS + " s", e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new DemoException("interrupted", e);
    }
  }

  @Override
  public void event(GenerateEvent event) {
    synchronized (this) {
      switch (event.getEventCase()) {
        case STARTED -> started = event.getStarted();
        case DELTA -> {
          text.append(event.getDelta().getText());
          for (int token : event.getDelta().getTokenIdsList()) {
            tokens.add(token);
            arrivals.add(System.nanoTime());
          }
        }
        default -> finished.complete(event.getFinished());
      }
    }
    onChange.run();
  }

  @Override
  public void end(@Nullable Throwable failure) {
    finished.completeExceptionally(
        failure == null ? new IllegalStateException("the answer ended early") : failure);
  }
}
