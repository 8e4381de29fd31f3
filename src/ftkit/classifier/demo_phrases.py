"""The phrases of the made-up demo corpus: what its grammar can say.

One template a line. ``(a|b)`` chooses, ``(a|)`` may say nothing, ``{word}`` takes a line of :data:`SLOTS`, ``#`` is a digit and
``^`` a digit that is not 0. Telephone numbers lie in the ranges set aside for fiction, web addresses in the reserved domains.
"""

from __future__ import annotations


def _lines(block: str) -> tuple[str, ...]:
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

OPENERS = _lines("""
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
NEUTRAL = _lines("""
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

HAM_SENTENCES = _lines("""
    (i'm|i am|im) (running|gonna be|about) {mins} (mins|minutes) late
    (just|only) (got|getting) (home|to {place}|off the bus|out of {event}|up)
    (can|could) you (pick up|get|grab|bring) (some|more|the) ({food}|milk|bread|nappies|cat food)(| on your way home| from {place})?
    (what time|where|when) (are we meeting|shall we meet|do we leave) (for {event}|{day}|tonight)?
    i (left|forgot|lost) my {thing} (at {place}|in the car|at yours|on the train|again)
    {kin} (is|was) asking (about you|when you are coming|if you want {food})
    (we are|we're) having {food} (tonight|for tea|{day})(|, want to come|, you in)?
    (how was {event}|how was your day|how did {event} go)?
    the (bus|train|tube|lift|car) (broke down|is late again|never came|was packed)
    (i'm|im) (so|really|a bit) {mood}(| after {event}| today|)
    (see|meet) you (at|outside|near) {place} at {time}
    (will you|did you|can you) feed {pet}(| yet| please| for me)?
    {kin} (made|cooked|burnt|ate all) the {food}
    (i will|i'll) (call|ring|text) you (after {event}|when i get to {place}|in {mins} mins|later)
    (my boss|the boss|{name}) wants (me to stay late|the report by {day}|us in at {time})
    (it is|its) (raining|freezing|boiling|snowing) (here|again|at {place})(|, take a coat)
    (shall|should) (we|i) (watch a film|go to {place}|cook|stay in|book {event}) {day}?
    (good luck|well done) (for|with|in) {event}
    (can't|cant) (talk|come|make it|sleep)(| now| tonight), (in {event}|too tired|{kin} is ill|working)
    (thanks|thank you) for (dinner|the lift|the {food}|looking after {pet}|having us|listening)
    {kin} (has|got) (a cold|toothache|chickenpox|the flu|a new job|a baby girl)
    (love|miss) you (loads|so much|too|lots)
    (tell|ask) {kin} (i said hi|to call me|to bring the {thing}|about {day})
    have you (finished|done|printed) the (homework|essay|form|washing up|slides)(| yet)?
    (i owe you|you owe me|{name} owes us) {money} (for {food}|from {day}|for the tickets)
    my (phone|battery|laptop) (is about to die|is dead|was off|is charging)
    (he|she|{name}) (never|always|still) (replies|turns up|texts back|cooks|forgets {event})
    (am|i'm|im) (on the bus|in a taxi|on my way|walking to {place}|stuck in traffic)
    (yeah|yep|sure|ok|no problem|fine), (see you then|sounds good|{time} works|i'll be there|whatever you like)
    (no|nah|nope), (not yet|i'm at {place}|{name} has it|can't {day}|maybe {day})
    (where are you|you there|are you awake|u home yet)?
    (which|what) (room|platform|page|bus|gate) (is it|do i need|are we in)?
    i (think|reckon|guess) (it is|its) (too late|on {weekday}|{kin}'s|at {place}|cancelled)
    (wake me|save me a seat|keep me some {food}|leave the door open|turn the oven on) (please|at {time}|if you can)
    (we|they) (lost|won|drew) (2-1|3-0|again|on penalties)(|, what a match|, gutted)
    {pet} (ate|hid|broke|is asleep on) my {thing}
    (the doctor|the dentist|the plumber) (can see me|is coming|said it is fine) (at {time}|{day})
    (remember|do you remember) (that|the) ({food}|trip|teacher|{place}) (we had|from school|last summer)?
    i (passed|failed) (my driving test|maths|{event})(|!)
    (bring|take) (your|a|the) {thing} {day}
    (the kids|we) are (at|in|near) {place} (till|until) {time}
    how much (was|is) the (rent|{thing}|taxi|bill) (again|in the end)?
""")

# Genuine messages with the words of advertising, and notices that were asked for.
HAM_HARD = _lines("""
    (guess what|you won't believe it), (i|{kin}) won (a {goods}|{money}|first prize|a {goods} worth {money}) (at {event}|in the school raffle|at work)
    (did you|do you) (claim|get|use) (the|that) (free {goods}|voucher|prize|refund) (yet|from {name}|in the end)?
    (got|i got) (another spam text|one of those texts|a message) saying (i won|i have won) {sum}, (obviously fake|don't reply to it|told {kin} to delete it)
    if (anyone|someone) (texts|rings) you (about a prize|for your bank details|offering {sum}), (ignore it|don't call back|hang up)
    (they have|theres|there is) (free {food}|free entry|free parking|a sale|half price {food}) (at {place}|before {time}|for students) {day}(|, coming)?
    (i have|got|i've) ^ (free|spare) tickets (for|to) {event}, (want one|who wants to come|first to reply gets them)?
    call me on {phone}, (my phone is dead|this is {name}'s|new number|i'm at work)
    (my new number is|the number for {place} is|{name}'s number is|landlord is on) {phone}
    (photos|pics) (from|of) {event} are (up|here): {link}
    (here is|heres|this is) the link (for|to) (the form|{event}|the bus times|the recipe): {link}
    (your|the) (parcel|package|{goods}) (came|was delivered|is here|arrived), (it's with {name}|left it in the hall|i signed for it)
    (can you|could you) (lend|send|transfer) me {money} (till {day}|for rent|for {event})(|, will pay you back)?
    (i paid|just sent|transferred) (you|{name}|the deposit) {money}, (check your account|did it arrive|let me know)
    your (appointment|table|order|book) (is|for {name} is) (booked|confirmed|ready|due back) (for|on) {day} at {time}(|. call {phone} to change it)
    (bank|the bank) (blocked|stopped) my card (again|abroad|at {place}), (on hold for {mins} mins|had to verify everything|so annoying)
    (the code|the door code|wifi code|the password) is {code}(|, don't share it|, ring if it fails)
    (text|message) {name} (yes|no) {soon} (if you want to|about) (come|a lift|{event}|the {goods})
    my (phone contract|insurance|gym membership) (runs out|is up) {day}, (know any good offers|should i upgrade|{money} a month is too much)
    (i'm selling|{name} is selling) (my|the) {goods} for {money}, (hardly used|do you want it|know anyone)?
    (congrats|congratulations)(|!|!!) (heard you won|you got the job|you passed|on the prize|on the new {goods})
    (urgent|important)(|!|:) (bring my {thing}|call {kin}|need you home|where is {pet}) {soon}
    (i claimed|we claimed|finally got) (the|our) {money} (refund|cashback|bonus|back) (from the train|from work|on the {goods})
    (we|they) (guaranteed|offered|promised) me a (free {goods}|bonus of {money}|better rate) (at work|for staying), (what do you think|should i take it)?
    win or lose, (free {food}|drinks) on me (after {event}|{day})
    (did you|want to) (enter|join|win) the (quiz|competition|draw) (at {place}|{day})? (prize is|winner gets) a {goods}
    (last chance|final call) to (order {food}|sign up for {event}|pay {money}), (i'm sending it off {day}|list closes {time})
    reminder: {event} {day} at {time}. (reply yes if you can come|bring {money}|text {name} if not)
    (click|use) the link {name} sent, (mine doesn't work|it is {link}|you need an account first)
    the offer (was accepted|went through)(!|!!) (we got the house|call me|so happy)
    (unsubscribed|trying to unsubscribe) from (that|those) (weekly texts|club), (they took {money}|still get them|what a scam)
""")

SPAM_SENTENCES = _lines("""
    (you have|you've|u have) (won|been awarded|been selected for) (a {goods}|{sum}|our weekly prize|a {goods} worth {sum})
    (your|ur) (mobile|phone|number|account) (was|has been) (chosen|selected|picked|drawn) (to receive|for) (a {goods}|{sum}|a bonus)
    (call|ring|phone) {phone} (now|{soon}|to claim|to collect|and quote {code})
    (text|txt|send) {word} to {short}(| now| {soon}| to join)
    (to claim|to collect|to receive it|for details) (call {phone}|text {word} to {short}|go to {link}|visit {link})
    (calls|texts|msgs) cost (^0p|{money}) (per min|each|a week)(|, 18+)
    (claim|collect|redeem) (code|ref|your code) {code}
    (reply|text|send) stop to (end|opt out|cancel)(| {short})
    (free|half price|cheap) ({goods}|ringtone|minutes|calls|entry) (for every member|with any order|when you join|this week only)
    (get|enjoy|grab) (^0|^5) percent off (all orders|any {goods}|everything at our shop|your next bill)
    (we are trying|our team tried|final attempt) to (contact|reach) you (about|regarding) (your {goods}|your prize|an unpaid refund)
    (your|a) (loan|credit|cash advance) (of {sum}|up to {sum}) is (approved|ready|waiting), (no checks|paid {soon}|low rates)
    (your|the) account (is|has been|will be) (locked|suspended|limited|closed), (verify|confirm|update) (your details|it) at {link}
    (parcel|package|delivery) {code} (is held|could not be delivered|is waiting), pay {money} (fee|at {link}|to release it)
    (work|earn) (from home|in your spare time) and (make|get) {sum} (a week|a day|every month)
    (meet|chat with) (single|local|new) people (in your area|near you|tonight), (join free|reply {word}|sign up at {link})
    (last chance|final notice|act now|hurry)(|!|!!|:) (offer ends {soon}|only {mins} left|do not miss out)
    (upgrade|swap) to (a new|the latest) {goods} (for free|with {firm}|for only {money} a month)
    (double|unlimited) (minutes|texts|data) (for {money}|on {firm}|free for ^ months)
    (guaranteed|exclusive|special) (prize|cash|offer|reward|discount) (for {name}|inside|from {firm}|for our customers)
    (unsubscribe|terms|t and cs apply) (at {link}|see {link}|, 18 or over)
    (you are|your number is) (owed|entitled to|due) (a refund of|) {sum} (from {firm}|after your accident|in tax)
    (win|play for) {sum} (in our|with our) (quiz|draw|weekly competition)
    (cheap|best) (flights|insurance|energy|deals) (from {money}|guaranteed|at {link})
    (lose|drop) ^ (kilos|pounds) in ^ weeks (with our|, try our) (tea|plan|free sample)
    (invest|put in) {sum} (today|now) and (double it|get {sum} back|watch it grow)
    (someone|a secret admirer|a person you know) (fancies you|sent you a message|likes your profile), (find out who|see it) at {link}
    (take part in|complete|answer) our (survey|^ questions) (and get|for) (a {goods}|{sum}|a gift card)
    (this is|msg from|from) {firm}
    (valid|ends|expires) {soon}
    (we buy|sell us) your old {goods} for {money}, (free post|paid {soon})
    (new|hot) (games|tunes|pics) (every week|for your phone|, first one free)
""")

# Unsolicited messages that look like a friend's or like a plain notice.
SPAM_HARD = _lines("""
    (hi|hey) (mum|dad|gran), (i dropped my phone|my phone is broken|lost my phone), this is my new number(|, text me on {phone}|, can you help)?
    (i am|im) stuck at {place} and (need|short of) {money}, (can you send it|could you transfer it) {soon}?
    (it's|its|this is) {name} from {event}, (i got|just got) a new {goods}(|, add me on {link}|, text me on {phone})
    (do you remember me|guess who|miss me)? (we met at {place}|i saw you at {place}|from {event}). (text me back|call me) on {phone}
    (i saw|is this) (your|you in this) (photo|video|picture)(|, look): {link}
    (hi|hey) {name}, (are you still|still) looking for (a job|part time work|a flat|extra money)? (we have|there is) (one|work) near {place}
    (a friend|{name}|your neighbour) (asked us|told us) to (send you|invite you to) (a {goods}|this|{event}). (details|more) at {link}
    {kin} (says|said) you (could use|want|need) (some extra cash|a {goods}|a cheaper bill), (call me|reply yes) {soon}
    (i made|i'm making|{name} makes) {sum} (last week|a month) (working from home|from my sofa|with this), (ask me how|want in|you should try it)?
    (we missed you|sorry we missed you) (today|at {time}), (rebook your visit|your parcel is back at the depot), (small fee|see|go to) {link}
    (just|only) checking (this|if this) is (still|) your number(|, {name}|), (reply yes|say hi|text back)
    (can you|could you) do me a favour? (i need|please buy) ^ gift cards for {event}, (will pay you back|i'm in a meeting, can't talk)
    (your|the) (payment|bill) of {money} (did not go through|bounced|is late), (please pay|sort it out) {soon} (at {link}|on {phone})
    (hey|hi)(| you| stranger| {dear}), (i am new here|im bored|i'm home alone) (and|,) (want to chat|looking for a friend|my pics are at {link})
    (the landlord|the school|the clinic|the library) (changed|has new) bank details, (please send|pay) {money} to (the new account|account {code})
    (dear|hello) (customer|friend|parent|student), your (form|card|booking|{goods}) is (ready|incomplete|due), (finish|collect) it at {link}
    (i have|got) a (spare|nearly new) {goods} going for {money}, (send the deposit|pay half now) and (i will post it|its yours)
    (you left|we found) your (basket|{goods}) (behind|at {place}), come back {soon} and (we take|we knock) {money} off
    (don't|do not) tell {name} but (you are|we are) getting a {goods}, (log in|confirm) at {link}
    (are you|you) free {day}? we are (giving away|handing out) {goods} at {place}
    (been|we've been) thinking of you {dear}, (ring|call) {phone} (to hear my message|and listen|for your surprise)
    (your|the) (doctor|dentist|school|landlord) left (you a voicemail|a message), (dial|call) {phone} to (listen|hear it)
    (do not|dont) (share|give) this code {code} with anyone, (not you|if it was not you)? (call {phone}|log in at {link})
    (quick question|small favour), (do you own your home|who is your energy with|are you happy with your bill)? (reply yes or no|we can save you {money})
    (we owe|i owe) you {money} (for|from) {event}, (send|give) me your (account|bank) details (so i can pay|and its yours)
""")

# Nobody can tell from the text alone: these stand on both sides.
AMBIGUOUS = _lines("""
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
