"""What the made-up messages of the demo corpus are about: sentences by class and topic.

Many topics stand on both sides (prizes, parcels, money, appointments), so that the words of a topic do not give the class
away. One template a line, in the notation of :mod:`ftkit.classifier.demo_phrases`.
"""

from __future__ import annotations

from ftkit.classifier.demo_phrases import lines

# Genuine messages by topic. Half of the topics are those of advertising and fraud.
HAM_TOPICS: dict[str, tuple[str, ...]] = {
    "meeting": lines("""
        (i'm|i am|im) (running|gonna be|about) {mins} (mins|minutes) late
        (what time|where|when) (are we meeting|shall we meet|do we leave) (for {event}|{day}|tonight)?
        (see|meet) you (at|outside|near) {place} at {time}
        (yeah|yep|sure|ok|no problem|fine), (see you then|sounds good|{time} works|i'll be there|whatever you like)
        (shall|should) (we|i) (watch a film|go to {place}|stay in|book {event}) {day}?
        (where are you|you there|are you awake|u home yet)?
        (am|i'm|im) (on the bus|in a taxi|on my way|walking to {place}|stuck in traffic)
        the (bus|train|tube|lift|car) (broke down|is late again|never came|was packed)
        (save me a seat|wait for me|start without me) (please|at {place}|if you can)
        (just|only) (got|getting) (home|to {place}|off the bus|out of {event}|up)
    """),
    "food": lines("""
        (can|could) you (pick up|get|grab|bring) (some|more) ({food}|milk|bread)(| on your way home| from {place})?
        (we are|we're) having {food} (tonight|for tea|{day})(|, want to come|, you in)?
        {kin} (made|cooked|burnt|ate all) the {food}
        (keep|save) me some {food}
        (turn the oven on|put the {food} in|lay the table) (please|at {time}|when you get home)
        i am (starving|so full|sick of {food}), (what's for tea|is there any {food}|shall we order)?
        the {food} (was lovely|is off|needs salt|took ages)
        (remember|do you remember) (that|the) {food} (we had|from school|last summer)?
    """),
    "family": lines("""
        {kin} (is|was) asking (about you|when you are coming|if you want {food})
        {kin} (has|got) (a cold|toothache|chickenpox|the flu|a baby girl)
        (love|miss) you (loads|so much|too|lots)
        (tell|ask) {kin} (i said hi|to bring the {thing}|about {day})
        (will you|did you|can you) feed {pet}(| yet| please| for me)?
        {pet} (ate|hid|broke|is asleep on) my {thing}
        (we|{kin} and i) are (at|in|near) {place} (till|until) {time}
        (give|send) {kin} (a hug|my love|a kiss) from me
        i left my {thing} (at {place}|in the car|at yours|on the train|again)
        {kin} (never|always|still) (turns up late|cooks on {weekday}|forgets {event})
    """),
    "study and work": lines("""
        (good luck|well done) (for|with|in) {event}
        (how was {event}|how was your day|how did {event} go)?
        have you (finished|done|printed) the (homework|essay|form|slides)(| yet)?
        (my boss|the boss|{name}) wants (me to stay late|the report by {weekday}|us in at {time})
        i (passed|failed) (my driving test|maths|{event})(|!)
        (which|what) (room|page|chapter|group) (is it|do we need|are we in)?
        (can't|cant) (talk|come|make it) now, (in a lecture|in a meeting|too much work)
        (i'm|im) (so|really|a bit) {mood}(| after {event}| today|)
        the interview (is at {time}|went well|was awful), they (offered me|want|may give me) {money} a week
        i got the job(|!|!!) (start {day}|call me|{money} an hour)
        they (need|are looking for) (help|someone) at {place}, (want me to ask|you should apply)?
    """),
    "prize": lines("""
        (guess what|you won't believe it), (i|{kin}) won (a {goods}|{money}|first prize|a {goods} worth {money}) (at {event}|in the school raffle|at work)
        (did you|have you) (claim|claimed|get|collected) (the|that) (free {goods}|voucher|prize) (yet|from {name}|in the end)?
        (congrats|congratulations)(|!|!!) (heard you won|you came first|on the prize|on the new {goods})
        (did you|want to) (enter|join|win) the (quiz|competition|draw) (at {place}|with me)? (prize is|winner gets) a {goods}
        (we|they) (lost|won|drew) (2-1|3-0|again|on penalties)(|, what a match|, gutted)
        win or lose, (free {food}|drinks) on me (after {event}|{day})
        the raffle is on {weekday}, (tickets are|it costs) {money}
        i have to collect (my prize|the {goods}|the cup) (at|from) {place} by {time}
        my number was (drawn|picked|called) (last|first)(| at {event}| in the raffle), (never win anything|so happy)
    """),
    "money": lines("""
        (can you|could you) (lend|send|transfer) me {money} (till {weekday}|for rent|for {event})(|, will pay you back)?
        i paid (you|{name}|the deposit) {money}, (check your account|did it arrive|let me know)
        (i owe you|you owe me|{name} owes us) {money} (for {food}|from {weekday}|for the tickets)
        how much (was|is) the (rent|{thing}|taxi|bill) (again|in the end)?
        (bank|the bank) (blocked|stopped) my card (again|abroad|at {place})
        on hold (with the bank|with customer care) for {mins} mins, had to verify everything
        (we claimed|finally got) (the|our) {money} (refund|cashback|bonus|back) (from the train|from work|on the {goods})
        if (anyone|someone) (texts|rings) you (for your bank details|offering {sum}), (ignore it|don't call back|hang up)
        (got|i got) (another spam text|one of those texts|a message) saying (i won|i have won|i am owed) {sum}, (obviously fake|don't reply to it|told {kin} to delete it)
        the loan (came through|was refused|is paid off), (so happy|what now|tell {kin})
    """),
    "parcel": lines("""
        (your|the|a) (parcel|package|{goods}) (came|was delivered|is here|arrived), (it's with {name}|left it in the hall|i signed for it)
        (are you|will you be) in {day}? (the {goods}|my parcel) (is coming|should come) at {time}
        (i missed|we missed) the delivery (again|at {time}), (can you collect it|it's at the depot|have to rebook)
        i ordered (the wrong {goods}|two by mistake|a {thing} for {kin}), (sending it back|want one|cost me {money})
        they want {money} (for the delivery|for customs|to post it)(|, what a rip off|, is that right)?
        (leave|put) the parcel (with {name}|behind the bin|in the shed)
        the tracking says {weekday}, code is {code}
    """),
    "phone and number": lines("""
        call me on {phone}, (my phone is dead|this is {name}'s|i'm at work)
        (the number for {place} is|{name}'s number is|landlord is on) {phone}
        my (phone|battery|laptop) (is about to die|is dead|was off|is charging)
        (the door code|wifi code|the password) is {code}(|, don't share it|, ring if it fails)
        (i will|i'll) (call|ring|text) you (after {event}|when i get to {place}|in {mins} mins|later)
        my (phone contract|insurance|gym membership) (runs out|is up) {day}, (know any good offers|should i upgrade|{money} a month is too much)
        i dropped my phone (in the bath|again|on the stairs), (can i borrow yours|screen is broken|use the landline)
        you left me a voicemail but (i can't hear it|there was no sound|it cut off)
        (i got|{kin} got) a new phone, (unlimited texts|same number|paid {money})
    """),
    "links and pictures": lines("""
        (photos|pics) (from|of) {event} are (up|here): {link}
        (here is|heres|this is) the link (for|to) (the form|{event}|the bus times|the recipe): {link}
        (click|use) the link {name} sent, (mine doesn't work|it is {link}|you need an account first)
        is this you in the photo (from {event}|with {kin})?
        you look (great|so young|funny) in that (photo|picture|video)
        (send|show) me the (pics|photos|video) (of {pet}|from {event}|when you can)
        (sign up|put your name down) for {event} (at|on) {link}(| before {weekday})
    """),
    "offers": lines("""
        (they have|theres|there is) (free {food}|free entry|free parking|a sale|half price {food}) at {place} (before {time}|for students|{day})(|, coming)?
        (i have|got|i've) ^ (free|spare) tickets (for|to) {event}, (want one|who wants to come|first to reply gets them)?
        (i'm selling|{name} is selling) (my|the) {goods} for {money}, (hardly used|do you want it|know anyone)?
        (the sale|that offer) (ends|starts) {day}, (shall we go|they had {goods} for {money}|i want a {goods})
        bought a {goods} (half price|for {money}|in the sale), (love it|what do you think|don't tell {kin})
        (last chance|final call) to (order {food}|sign up for {event}), i'm sending it off {day}
        {place} is giving away {goods} (for free|to members), (want one|be quick|i got two)
    """),
    "appointments": lines("""
        your (appointment|table|order|book) is (booked|confirmed|ready|due back) (for|on) {weekday} at {time}(|. call {phone} to change it)
        reminder: {event} {day} at {time}. (reply yes if you can come|bring {money}|text {name} if not)
        (the doctor|the dentist|the plumber) (can see me|is coming|said it is fine) (at {time}|{day})
        (urgent|important)(|!|:) (bring my {thing}|call {kin}|need you home|where is {pet}) {soon}
        (text|message) {name} (yes|no) {soon} (if you want to|about) (come|a lift|{event}|the {goods})
        the clinic (rang|called|left a message), (all fine|need to go back {day}|call them on {phone})
        (they changed|can we change) the (time|date) to {weekday}(|, is that ok|, sorry)
    """),
}

# Unsolicited messages by topic: plain advertising, and fraud that looks like a friend's word or a plain notice.
SPAM_TOPICS: dict[str, tuple[str, ...]] = {
    "prize": lines("""
        (you have|you've|u have) (won|been awarded|been selected for) (a {goods}|{sum}|our weekly prize|a {goods} worth {sum})
        (your|ur) (mobile|phone|number|account) (was|has been) (chosen|selected|picked|drawn) (to receive|for) (a {goods}|{sum}|a bonus)
        (call|ring|phone) {phone} (now|{soon}|to claim|to collect|and quote {code})
        (to claim|to collect|to receive it|for details) (call {phone}|text {word} to {short}|go to {link}|visit {link})
        (claim|collect|redeem) (code|ref|your code) {code}
        (we are trying|our team tried|final attempt) to (contact|reach) you (about|regarding) (your {goods}|your prize)
        (win|play for) {sum} (in our|with our) (quiz|draw|weekly competition)
        (guaranteed|exclusive|special) (prize|cash|reward) (for {name}|inside|from {firm}|for our customers)
        (valid|ends|expires) {soon}
    """),
    "phone deals": lines("""
        (text|txt|send) {word} to {short}(| now| {soon}| to join)
        (calls|texts|msgs) cost (^0p|{money}) (per min|each|a week)(|, 18+)
        (upgrade|swap) to (a new|the latest) {goods} (for free|with {firm}|for only {money} a month)
        (double|unlimited) (minutes|texts|data) (for {money}|on {firm}|free for ^ months)
        (reply|text|send) stop to (end|opt out|cancel)(| {short})
        (new|top) (games|tunes|pics) (every week|for your phone|, first one free)
        you have (^|one|two) new (voicemail|messages) (waiting|from a friend), (dial|call) {phone} to listen
        your phone contract (runs out|is up) {day}, we (can offer|have) (a better rate|a free {goods}|{money} off)
        (your|the) (doctor|dentist|school|landlord) left (you a voicemail|a message), (dial|call) {phone} to (listen|hear it)
    """),
    "account": lines("""
        (your|the) account (is|has been|will be) (locked|suspended|limited|closed), (verify|confirm|update) (your details|it) at {link}
        (your|the) (payment|bill) of {money} (did not go through|bounced|is late), (please pay|sort it out) {soon} (at {link}|on {phone})
        (do not|dont) (share|give) this code {code} with anyone, (not you|if it was not you)? (call {phone}|log in at {link})
        (this is|msg from|from) {firm}
        (the landlord|the school|the clinic|the library) (changed|has new) bank details, please (send|pay) {money} to (the new account|account {code})
        (dear|hello) (customer|friend|parent|student), your (form|card|booking) is (ready|incomplete|due), (finish|collect) it at {link}
        your card was (used|blocked|stopped) (abroad|at {place}|at {time}), (not you|was it you)? (reply no|ring {phone})
        (log in|sign in) at {link} (to keep|to unlock|to check) your (account|card)
    """),
    "parcel": lines("""
        (parcel|package|delivery) {code} (is held|could not be delivered|is waiting), pay {money} (fee|at {link}|to release it)
        (we missed you|sorry we missed you) (today|at {time}), (rebook your visit|your parcel is back at the depot)
        (rebook|choose a new day|pick a time) (at|on) {link}
        a small fee of {money} (is due|is left to pay|applies)
        your {goods} is (at customs|on hold|with the driver), (confirm your address|pay the duty) (at {link}|{soon})
        the driver (could not find you|needs your address|rang twice), (reply yes|call {phone})
        parcels are (sent back|kept) (after ^ days|until {weekday})
    """),
    "loan and refund": lines("""
        (your|a) (loan|credit|cash advance) (of {sum}|up to {sum}) is (approved|ready|waiting), (no checks|paid {soon}|low rates)
        (you are|your number is) (owed|entitled to|due) (a refund of|) {sum} (from {firm}|after your accident|for tax)
        (bad credit|in debt|short of money)? we (can help|say yes|pay out {soon})
        (apply|check what you are owed|ask for your money) (at {link}|on {phone}|{soon})
        (invest|put in) {sum} (today|now) and (double it|get {sum} back|watch it grow)
        i owe you {money} (for|from) {event}, (send|give) me your (account|bank) details (so i can pay|and its yours)
        (quick question|small favour), (do you own your home|who is your energy with|are you happy with your bill)?
        we can save you {money} (a month|on your bill|a year), (reply yes or no|reply yes)
    """),
    "job": lines("""
        (work|earn) (from home|in your spare time) and (make|get) {sum} (a week|a day|every month)
        (hi|hey) {name}, (are you still|still) looking for (a job|part time work|extra money)?
        we have (one|work|a place) near {place}, (no experience needed|start {day}|paid weekly)
        i made {sum} (last week|in a month) (working from home|from my sofa|with this), (ask me how|want in|you should try it)?
        {kin} (says|said) you (could use|want|need) (some extra cash|a better job), (call me|reply yes) {soon}
        {name} (makes|earns) {sum} a week (with us|with this), (you can too|join {soon})
        (send|give) us your (name|age|bank details) (to start|{soon}|at {link})
        only ^ places left(| near you| for {weekday})
    """),
    "friend in need": lines("""
        (hi|hey) (mum|dad|gran), (i dropped my phone|my phone is broken|lost my phone), this is my new number
        (i am|im) stuck at {place} and (need|short of) {money}, (can you send it|could you transfer it) {soon}?
        (can you|could you) do me a favour? (i need|please buy) ^ gift cards for {event}
        will pay you back {day}, (i'm in a meeting|can't talk now|my card is blocked)
        (don't|do not) (ring|call) my old number, (text me on|it is now|use) {phone}
        (send|transfer) it to (account {code}|my friend's account|{name}'s card), (i'll explain later|it's urgent)
        (just|only) checking if this is still your number(|, {name}|), (reply yes|say hi|text back)
        i (lost|left) my wallet (at {place}|on the train) and (the rent|a bill|{event}) is due {day}
    """),
    "stranger": lines("""
        (do you remember me|guess who|miss me)? (we met at {place}|i saw you at {place}|from {event})
        (i saw|is this) (your|you in this) (photo|video|picture)(|, look): {link}
        (hey|hi)(| you| stranger| {dear}), (i am new here|im bored|i'm home alone)
        (want to chat|looking for a friend|my pics are at {link}|write me on {phone})
        (someone|a secret admirer|a person you know) (fancies you|sent you a message|likes your profile), (find out who|see it) at {link}
        (meet|chat with) (single|local|new) people (in your area|near you|tonight), (join free|reply {word}|sign up at {link})
        been thinking of you {dear}, (ring|call) {phone} (to hear my message|and listen|for your surprise)
        (it's|its|this is) {name} from {event}, add me on {link}
    """),
    "shop": lines("""
        (free|half price|cheap) ({goods}|minutes|calls|entry|{food}) (for every member|with any order|when you join|this week only)
        (get|enjoy|grab) (^0|^5) percent off (all orders|any {goods}|everything at our shop|your next bill)
        (last chance|final notice|act now|hurry)(|!|!!|:) (offer ends {soon}|only {mins} left|do not miss out)
        (cheap|best) (flights|insurance|energy|deals) (from {money}|guaranteed|at {link})
        (lose|drop) ^ (kilos|pounds) in ^ weeks (with our tea|with our plan|, try a free sample)
        (take part in|complete|answer) our (survey|^ questions) (and get|for) (a {goods}|{sum}|a gift card)
        (we buy|sell us) your old {goods} for {money}, (free post|paid {soon})
        (unsubscribe|terms|t and cs apply) (at {link}|see {link}|, 18 or over)
        (you left|we found) your (basket|{goods}) (behind|at {place}), come back {soon}
        (a friend|{name}|your neighbour) (asked us|told us) to (send you|invite you to) (a {goods}|this|{event}), details at {link}
        we are (giving away|handing out) {goods} at {place} {day}
        i have a (spare|nearly new) {goods} for {money}, (send the deposit|pay half now) and (i will post it|its yours)
    """),
}
