package dev.wardrobe;

import dev.wardrobe.serve.AnswerCollector;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.Message;
import java.time.Duration;
import java.util.concurrent.ExecutionException;
import java.util.stream.IntStream;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Requests that nobody asked, answered by the base before readiness is announced. The kernels are
 * compiled by then; what surrounds them has never run, nor have the kernels on this model's shapes,
 * and the first request would wait for the compiler several times as long as the tenth for its
 * answer.
 */
final class Rehearsal {
  private static final Logger log = LoggerFactory.getLogger(Rehearsal.class);

  /** The first two go through most of the code there is. */
  private static final int LEAST_ROUNDS = 2;

  /** After these the compiler has seen enough even of a small model's steps. */
  private static final int MOST_ROUNDS = 64;

  /** When further rounds are no longer worth the wait. */
  private static final long ENOUGH_NANOS = Duration.ofSeconds(1).toNanos();

  private static final String PROMPT = "The first one is for nobody, the second one too.";
  private static final int PROMPT_TOKENS = 12;
  private static final int TOKENS = 6;

  private final Stack stack;

  Rehearsal(Stack stack) {
    this.stack = stack;
  }

  /**
   * Answers until it goes as fast as it will, or until {@code end} ({@link System#nanoTime}). What
   * is measured begins behind it.
   */
  void run(long end) throws InterruptedException {
    answer(end);
    try {
      stack.engine().measureAnew().get();
    } catch (ExecutionException e) {
      // Whoever asks will be told so as well.
      log.debug("the engine has ended", e);
    }
  }

  private void answer(long end) throws InterruptedException {
    long start = System.nanoTime();
    for (int round = 0; round < MOST_ROUNDS; round++) {
      long now = System.nanoTime();
      if (end - now <= 0 || (round >= LEAST_ROUNDS && now - start > ENOUGH_NANOS)) {
        return;
      }
      AnswerCollector answer = new AnswerCollector();
      stack.conversation().start(request(round), end, answer);
      try {
        answer.result().get();
      } catch (ExecutionException e) {
        // Such as a template that wants other messages, or a context of a few tokens: then whoever
        // asks first waits longer, as without.
        log.debug("round {} of the rehearsal failed", round, e);
      }
    }
  }

  /** As most requests are: greedy or drawn, a text or a conversation. */
  private GenerateRequest request(int round) {
    GenerateRequest.Builder request =
        GenerateRequest.newBuilder().setMaxTokens(TOKENS).setIgnoreEos(true).setSeed(round);
    if (round % 2 == 0) {
      request.setTemperature(0);
    } else {
      request.setTemperature(1).setTopP(0.9f).setTopK(40);
    }
    if (!stack.prompts().hasTokenizer()) {
      int vocabulary = stack.model().config().vocabulary();
      IntStream.range(0, PROMPT_TOKENS).forEach(i -> request.addTokenIds(i % vocabulary));
    } else if (round % 4 == 1 && stack.prompts().hasTemplate()) {
      request.addMessages(Message.newBuilder().setRole("user").setContent(PROMPT));
    } else {
      request.setPrompt(PROMPT);
    }
    return request.build();
  }
}
