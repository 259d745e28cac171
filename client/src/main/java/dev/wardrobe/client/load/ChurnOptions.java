package dev.wardrobe.client.load;

/**
 * How much comes and goes.
 *
 * @param names under the root that requests ask for
 * @param published names in the store that they ask for; 0 to leave the store alone
 * @param requests in all
 * @param streams requests at a time
 * @param cancelled of a hundred, how many the client cancels in the middle
 * @param pauseMillis between two changes of a kind
 * @param seed of everything that is drawn
 */
public record ChurnOptions(
    int names,
    int published,
    long requests,
    int streams,
    int cancelled,
    long pauseMillis,
    long seed) {}
