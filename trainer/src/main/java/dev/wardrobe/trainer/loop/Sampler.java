package dev.wardrobe.trainer.loop;

import dev.wardrobe.trainer.report.Answer;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;

/** What answers fixed prompts with an adapter, over the base that is resident. */
public interface Sampler {
  /**
   * Answers all prompts.
   *
   * @param adapter a PEFT directory that holds the adapter as it is
   * @param step for the answers
   * @param time for the answers
   * @throws IOException if they cannot be answered
   */
  List<Answer> answers(Path adapter, int step, long time) throws IOException;
}
