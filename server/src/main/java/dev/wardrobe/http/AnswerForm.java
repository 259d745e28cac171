package dev.wardrobe.http;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.v1.FinishReason;
import dev.wardrobe.v1.TokenLogprob;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** How an endpoint's answers are written. */
interface AnswerForm {
  /** What answers' ids begin with. */
  String prefix();

  /** {@code object} of an answer, or of a part of one. */
  String object(boolean part);

  /** What our gRPC's fields are called here, where it differs. */
  Map<String, String> fields();

  /**
   * One of the answers, from its beginning.
   *
   * @param prompt which of the prompts it answers
   */
  ChoiceForm choice(int prompt);

  /** An answer as it grows: what is returned becomes an element of {@code choices}. */
  interface ChoiceForm {
    /** What comes before all text, or null. */
    @Nullable ObjectNode begin(List<TokenLogprob> prompt);

    /** More of it, or null if there is nothing to tell yet. */
    @Nullable ObjectNode more(String text, List<Integer> tokens, List<TokenLogprob> logprobs);

    /** Its end, with what was not told yet. */
    ObjectNode end(FinishReason reason);

    /** All of it at once. */
    ObjectNode whole(
        List<TokenLogprob> prompt,
        String text,
        List<Integer> tokens,
        List<TokenLogprob> logprobs,
        FinishReason reason);
  }
}
