"""The words and the small talk of the made-up demo corpus; what its messages are about is in ``demo_topics``.

One template a line. ``(a|b)`` chooses, ``(a|)`` may say nothing, ``{word}`` takes a line of :data:`SLOTS`, ``#`` is a digit and
``^`` a digit that is not 0. Telephone numbers lie in the ranges set aside for fiction, web addresses in the reserved domains.
"""

from __future__ import annotations


def lines(block: str) -> tuple[str, ...]:
    """Return the lines of ``block`` without the indentation."""
    return tuple(line.strip() for line in block.strip().splitlines())


def _words(block: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in block.split(","))


SLOTS: dict[str, tuple[str, ...]] = {
    "name": _words(
        "Sam, Priya, Tom, Lena, Marcus, Aisha, Ben, Carla, Dev, Ella, Femi, Grace, Hana, Ivan, Jo, Kemal, Lucy, Mei, Nina, Omar, "
        "Pete, Rosa, Sanjay, Tess, Uma, Viktor, Wendy, Yusuf, Zoe, Anna, Callum, Dina, Erik, Freya, Gus, Holly, Isla, Jack"
    ),
    "kin": _words(
        "mum, dad, my sister, my brother, gran, uncle {name}, auntie {name}, my cousin, {name}, {name}, {name}"
    ),
    "pet": _words("the cat, the dog, the puppy, the hamster, our rabbit"),
    "dear": _words("mate, love, hun, buddy, dude, babe, sweetie, bro, sis, my dear"),
    "place": _words(
        "the station, the library, the gym, the office, the park, the pub, campus, town, the cinema, the market, the pool, the bakery, "
        "the hospital, the airport, the garage, the church hall, the corner shop, the beach, the bus stop, school, the museum, the bank"
    ),
    "food": _words(
        "pizza, curry, noodles, soup, pasta, a roast, sandwiches, cake, dumplings, salad, pancakes, chips, tea, coffee, ice cream,"
        "leftovers, toast, porridge, fish pie, chilli, rice, stew, biscuits"
    ),
    "thing": _words(
        "keys, charger, jacket, umbrella, notes, headphones, wallet, bike, laptop, glasses, ticket, phone, passport, lunchbox, scarf,"
        "library book, drill, rucksack, water bottle, camera, tent, calculator"
    ),
    "goods": _words(
        "phone, tablet, laptop, camera, watch, telly, headset, bike, coffee machine, holiday, weekend break, hamper, shopping card,"
        "gift card, voucher, ticket, cruise, spa day, speaker, games console"
    ),
    "event": _words(
        "the party, the wedding, the match, the lecture, the exam, the interview, the gig, the meeting, practice, rehearsal, the quiz,"
        "the raffle, the school play, dinner, the barbecue, the funeral, the marathon, yoga, the film, choir"
    ),
    "day": _words(
        "{weekday}, {weekday}, {weekday}, tomorrow, tomorrow, tonight, next week, this weekend, this afternoon"
    ),
    "weekday": _words("monday, tuesday, wednesday, thursday, friday, saturday, sunday"),
    "time": _words("^pm, ^am, ^:30, ^:15, half ^, noon, around ^, ^ o'clock, 1#:45, 1#:20, quarter past ^"),
    "mins": _words("5, 10, 15, 20, 25, 30, 40, ^0"),
    "money": _words("£^, £^0, £^^, £^5, £^00, ^0 quid, a tenner, ^ pounds, £^^#, £^.^0"),
    "sum": _words("£^00, £^000, £^#00, £^^0, £^0, ^00 pounds, ^000 cash, £^50, £^5"),
    "phone": _words("07700 900###, 07700900###, 08081 570###, 0808 157 0###, 555-01##, 020 7946 0###"),
    "short": _words("0555#, 0556#, 0557#"),
    "link": _words(
        "www.example.com/^#, example.org/go^#, tinylink.example/a^#, www.example.net, pics.example/^##, bit.example/q#^,"
        "my.example.org/in, example.com"
    ),
    "code": _words("^####, A^##, K^^#, ^###, Q#^"),
    "word": _words("WIN, YES, GO, CLAIM, JOIN, PLAY, STOP, OK, INFO, HELP, CASH, FUN, CHAT, MORE"),
    "firm": _words(
        "your network, customer care, the rewards desk, your bank, the loans team, the parcel office, member services, the prize office,"
        "the survey team, the tax office, our shop, the club, head office, your provider, the clinic, the library"
    ),
    "mood": _words(
        "shattered, so happy, bored, starving, a bit down, nervous, full of cold, fine, proud, soaked, lost, ok, gutted"
    ),
    "laugh": _words("haha, lol, hehe, ha, omg, aww, hmm, oh, ugh, wow, yay, oops"),
    "bye": _words(
        "x, xx, love you, see you, thanks, ta, cheers, bye, ttyl, speak soon, take care, miss you, x {name}, thx, let me know"
    ),
    "hi": _words(
        "hi, hey, hello, hiya, hi {name}, hey {name}, {name}, morning, yo, hi {dear}, hello {name}, good evening, dear {name}"
    ),
    "soon": _words(
        "now, today, tonight, by {day}, before {day}, asap, this week, within ^ days, when you can, quickly, by {time}"
    ),
}

OPENERS = lines("""
    {hi}
    {hi},
    {hi}!
    {laugh}
    {laugh},
    ok
    ok so
    yes
    please
    sorry
    so
    good news
    just
    btw
    quick one:
    thanks,
    {name} here.
    well
    now
""")

# What anybody may write: small talk that stands on both sides.
NEUTRAL = lines("""
    how are you(| today| doing|)?
    hope you are (well|ok|good|having a nice time)
    (long time no see|it has been ages|been a while)
    sorry (about|for) (yesterday|the late reply|the delay|last night|missing your call)
    (did you get|have you seen) my (last|other) (message|text|email)?
    i tried (to call|calling|to ring) you (earlier|today|twice|at {time})
    (please|can you) (call|ring|text|phone) me (back|{soon})
    (please|pls) reply {soon}
    are you (free|around|about|in) {day}?
    (it is|its) about {event}
    thanks for (your order|your help|the reply|last week|coming|waiting)
    (the office|the shop|our phone line) is (open|closed) (until {time}|on {weekday})
    (happy birthday|merry christmas|happy new year|congratulations)(| again| from all of us)
    (do not|dont) (forget|miss it|worry|be late|tell {name})
    (it|this) only takes {mins} (mins|minutes)
    (only|just) {mins} (mins|minutes|days) left
    (let us|let me) know {soon}
    have a (great|nice|good|lovely) (day|evening|weekend|time|trip)
    you (will|would|may) (love|like|enjoy) (it|this)
    we (open|start|close|meet) at {time}
    see you (there|soon|{day}|at {time})
    (what do you think|what are you up to|anything new|any news)?
    {name} (said|told me) you (might|would) be interested
    the (new|old) {goods} is (great|here|ready|broken)
    this is my new number(|, save it)
    (ask|call) for {name}
    i have been (thinking of|trying to reach|waiting for) you
    (everything|all) is (ready|fine|paid|booked|set)
    (you are|youre) (welcome|on the list|invited|a star|in)
    (check|have a look at) (it|this)(| {soon})
""")

# Nobody can tell from the text alone: these stand on both sides.
AMBIGUOUS = lines("""
    (call|ring) me back on {phone} (please|{soon}|when you get this|)
    {name}, (please|) (call|text) {phone} {soon}
    (have a look at|look at|see) this: {link}
    (you have|) (^|one|two) new (voicemail|message|messages)(|, call {phone}|, dial {short})
    your order {code} is (ready|on its way|delayed)(|, see {link}|, track it at {link})
    (your|the) appointment is (on {weekday}|at {time}), (call {phone}|see {link}) to change it
    your code is {code}
    (hi|hey), is this (still|) {name}'s number?
    {goods} for sale, {money}, (text|call) {phone}
    your ({goods}|parcel) is (at the depot|ready to collect)(| until {weekday}|)
""")
