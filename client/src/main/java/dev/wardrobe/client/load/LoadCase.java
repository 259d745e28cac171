package dev.wardrobe.client.load;

import java.util.List;
import java.util.Locale;

/**
 * What load to make.
 *
 * @param name for the report
 * @param mix the adapters
 * @param streams of a closed loop: so many requests at a time, each followed at once by another
 * @param rate of an open loop: so many requests a second, at the times of a Poisson process,
 *     whatever becomes of them; 0 for a closed loop
 * @param prompt tokens of a prompt, random ones
 * @param shared tokens that all prompts begin with
 * @param answer tokens of an answer, exactly
 * @param guests adapters of requests beside the load, in turn
 * @param guestEvery seconds between two guests
 * @param guestAnswer tokens of a guest's answer
 * @param deadlineMillis of each request; 0 for none
 */
public record LoadCase(
    String name,
    AdapterMix mix,
    int streams,
    double rate,
    Lengths prompt,
    int shared,
    Lengths answer,
    List<String> guests,
    double guestEvery,
    Lengths guestAnswer,
    long deadlineMillis) {
  public LoadCase {
    guests = List.copyOf(guests);
  }

  /** Whether requests come when they come. */
  boolean open() {
    return rate > 0;
  }

  /** One line for people. */
  public String describe() {
    StringBuilder text = new StringBuilder();
    if (open()) {
      text.append(String.format(Locale.ROOT, "%.4g requests/s offered (Poisson)", rate));
    } else {
      text.append(streams).append(streams == 1 ? " stream" : " streams");
    }
    text.append(", ").append(mix).append(", prompts of ").append(prompt);
    if (shared > 0) {
      text.append(" (").append(shared).append(" shared)");
    }
    text.append(", answers of ").append(answer);
    if (!guests.isEmpty()) {
      text.append(
          String.format(
              Locale.ROOT,
              ", a guest each %.4g s (%d adapters in turn)",
              guestEvery,
              guests.size()));
    }
    return text.toString();
  }
}
