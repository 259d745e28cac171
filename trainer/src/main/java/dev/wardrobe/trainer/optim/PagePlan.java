package dev.wardrobe.trainer.optim;

/**
 * What a step moves, known beforehand: with P pages and F frames of which S are the ring, {@code R
 * = F - S} pages stay and {@code P - R} stream.
 *
 * <p>The first step brings nothing in, since pages begin as zeros, but reads ahead at its end what
 * the next one begins with; each later one brings in what streams. Of both, pages with which one
 * step ends and the next begins stay in the ring: {@code max(0, 2S - (P - R))}. Every step writes
 * all that streams.
 *
 * @param pages P
 * @param resident R
 * @param ring S, 0 if all pages stay
 */
public record PagePlan(int pages, int resident, int ring) {

  /** The plan for a budget of {@code frames}, of which at most {@code ring} are on their way. */
  public static PagePlan of(int pages, int frames, int ring) {
    if (frames >= pages) {
      return new PagePlan(pages, pages, 0);
    }
    int slots = Math.min(ring, frames);
    return new PagePlan(pages, frames - slots, slots);
  }

  /** Pages that stream. */
  public int streaming() {
    return pages - resident;
  }

  /** Pages that the first step brings in. */
  public int firstIn() {
    return ring - kept();
  }

  /** Pages that each later step brings in. */
  public int in() {
    return streaming() - kept();
  }

  /** Pages that each step writes back. */
  public int out() {
    return streaming();
  }

  private int kept() {
    return ring == 0 ? 0 : Math.max(0, 2 * ring - streaming());
  }
}
