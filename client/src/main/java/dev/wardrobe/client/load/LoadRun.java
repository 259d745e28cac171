package dev.wardrobe.client.load;

/**
 * One run of a case.
 *
 * @param seconds how long it was measured
 * @param load what was seen of its requests
 * @param guests what was seen of the guests
 * @param unfinished requests that had no answer when the run was over and should have had
 * @param shares of the machine: the client's, the server's, others'
 * @param server what the server says of itself
 */
public record LoadRun(
    LoadCase of,
    double seconds,
    Observed load,
    Observed guests,
    int unfinished,
    Occupancy.Shares shares,
    ServerSeen server) {
  /** A run that shared more of the machine than this says little. */
  static final double MOST_OTHERS = 0.06;

  /** Tokens a second, guests' excluded. */
  public double tokensPerSecond() {
    return load.tokens() / seconds;
  }

  public double requestsPerSecond() {
    return load.requests() / seconds;
  }

  /** Whether the machine was ours; so it is taken to be where nobody says. */
  public boolean undisturbed() {
    return !(shares.others() > MOST_OTHERS);
  }
}
