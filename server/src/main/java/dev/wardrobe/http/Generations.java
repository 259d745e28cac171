package dev.wardrobe.http;

import dev.wardrobe.serve.Served;
import dev.wardrobe.v1.FinishReason;
import dev.wardrobe.v1.GenerateRequest;
import java.util.HashSet;
import java.util.Set;

/** What answers to chats and completions have in common. */
final class Generations {
  private Generations() {}

  /** Tokens that end an answer and are no part of it. */
  static Set<Integer> ends(Served served, GenerateRequest.Builder request) {
    Set<Integer> ends = new HashSet<>(request.getStopTokenIdsList());
    if (!request.getIgnoreEos()) {
      ends.addAll(served.model().defaults().eos());
    }
    return ends;
  }

  /** Whether the answer's last tokens may be a text that ended it. */
  static boolean cut(FinishReason reason) {
    return reason == FinishReason.FINISH_REASON_STOP;
  }

  static String reason(FinishReason reason) {
    return reason == FinishReason.FINISH_REASON_LENGTH ? "length" : "stop";
  }

  /** vLLM's switches for what is always so here. */
  static void onlyUsual(Fields fields) throws FieldException {
    fields.only("skip_special_tokens", true);
    fields.withoutEffect("spaces_between_special_tokens");
    fields.only("include_stop_str_in_output", false);
    fields.only("use_beam_search", false);
  }
}
