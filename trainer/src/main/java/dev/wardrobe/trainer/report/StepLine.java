package dev.wardrobe.trainer.report;

import com.fasterxml.jackson.databind.node.ObjectNode;

/** What is said of a step, as a line of a file. */
public sealed interface StepLine permits StepMetrics, Answer {
  /** From 1; 0 is before the first. */
  int step();

  /** As one JSON object, with {@code step}. */
  ObjectNode json();
}
